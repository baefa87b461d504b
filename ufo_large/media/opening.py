"""Open a picture file of a stranger: only in the formats named here, and none that would fill the memory.

A few hundred bytes may claim 65,500 x 65,500 pixels, 12 GB when decoded. So every decoder of this package
first asks here for the size that the file's header states.
"""

import io
from pathlib import Path

import simplejpeg
from PIL import Image

# Pillow would also try formats that start other programs (EPS calls Ghostscript) or that few people tested
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
MAX_PIXELS = 178_956_970  # where Pillow too refuses
JPEG_MAGIC = b"\xff\xd8"


def open_picture(source: bytes | bytearray | Path) -> Image.Image:
    """Open a picture and read its header; the pixels are decoded at first use.

    Raises UnidentifiedImageError (an OSError) for what is none of `FORMATS`, ValueError for more than
    `MAX_PIXELS`, and what Pillow raises for a damaged header: OSError, SyntaxError, ValueError.
    """
    opened = io.BytesIO(source) if isinstance(source, bytes | bytearray) else source
    try:
        image = Image.open(opened, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{error}; it is not decoded") from None
    _require_few_pixels(image.height, image.width)
    return image


def stated_size(data: bytes | bytearray) -> tuple[int, int]:
    """Return (height, width) as the header states them, without decoding; raises as `open_picture`."""
    if data[:2] == JPEG_MAGIC:
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            pass  # Pillow judges what libjpeg refuses
        else:
            _require_few_pixels(height, width)
            return height, width
    with open_picture(data) as image:
        return image.height, image.width


def _require_few_pixels(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        told = f"its header states {width} x {height} pixels, more than {MAX_PIXELS}"
        raise ValueError(f"{told}; it is not decoded")
