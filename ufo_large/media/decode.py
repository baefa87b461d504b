"""Turn encoded bytes into arrays, no larger than needed: JPEGs are shrunk by 2, 4 or 8 inside the decoder.

Shrinking in the DCT domain skips most of the inverse transform and the colour conversion of pixels that a
resize would average away. EXIF orientation is ignored, because boxes and masks are stated in stored
pixels.
"""

import cv2
import numpy as np
import simplejpeg

from ufo_large.media.jpeg import cut, read_frame
from ufo_large.media.opening import JPEG_MAGIC, open_picture, stated_size
from ufo_large.media.pictures import in_8_bits
from ufo_large.structures import BadSample

PNG_MAGIC = b"\x89PNG"
PNG_COLOUR_TYPE, PNG_GRAY = 25, 0
Size = tuple[int, int]


def require_size(data: bytes, size: Size | None, what: str) -> None:
    """Raise BadSample, before anything is decoded, where the header states too much, or not the index's size.

    `size` is (height, width), None where only the limit of `stated_size` is known.
    """
    try:
        height, width = stated_size(data)
    except (OSError, ValueError, SyntaxError) as error:
        raise BadSample(f"unreadable {what}: {error}") from None
    if size not in (None, (height, width)):
        raise BadSample(f"{what} is {height}x{width}, the index says {size[0]}x{size[1]}")


def decode_image(
    data: bytes, shrink: int = 1, scratch: np.ndarray | None = None, size: Size | None = None
) -> np.ndarray:
    """Return RGB, uint8 [H, W, 3]; a JPEG is decoded at 1/shrink (1, 2, 4, 8) of its size, rounded up.

    The caller sees from the shape whether the shrink was done: other formats are returned whole. A JPEG that
    fits into `scratch` (uint8 [bytes]) is decoded there, so the result lasts until the next use of it; memory
    that is there already is a tenth faster than new. Raises BadSample for what no decoder reads whole, and as
    `require_size` does.
    """
    require_size(data, size, "image")
    if data[:2] == JPEG_MAGIC:
        try:
            return _decode_jpeg(data, shrink, scratch)
        except ValueError:
            pass
    try:
        return np.array(in_8_bits(open_picture(data)).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise BadSample(f"unreadable image: {error}") from None


def decode_part(
    data: bytes,
    part: tuple[int, int, int, int],
    shrink: int = 1,
    scratch: np.ndarray | None = None,
    size: Size | None = None,
) -> tuple[np.ndarray, Size, Size | None]:
    """Return RGB that holds `part` (top, left, height, width), and (top, left) of what was decoded.

    All in pixels of the whole image. Last is the whole image's (height, width), None where all of it was
    decoded; a JPEG with restart markers is decoded only where its intervals meet `part`. Else as
    `decode_image`.
    """
    require_size(data, size, "image")
    frame = read_frame(data) if data[:2] == JPEG_MAGIC else None
    piece = cut(data, frame, *part) if frame else None
    if frame and piece:
        try:
            pixels = _decode_jpeg(piece.data, shrink, scratch)
            return pixels, (piece.top, piece.left), (frame.height, frame.width)
        except ValueError:
            pass
    return decode_image(data, shrink, scratch), (0, 0), None


def _decode_jpeg(data: bytes | bytearray, shrink: int, scratch: np.ndarray | None) -> np.ndarray:
    """Decode strictly, so that a cut file is an error and not half grey; PIL judges what this refuses.

    The fast upsampling saves 4 to 10 % of the time and moves a pixel by 0.6 of 255 on average, without a
    bias; training and evaluation both use it. The fast transform would save 3 to 6 % more, but it tints every
    picture (red and blue come out one level too low), and a network notices when another program decodes.
    """
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    height, width = -(-height // shrink), -(-width // shrink)
    fits = scratch is not None and height * width * 3 <= len(scratch)
    return simplejpeg.decode_jpeg(
        data,
        fastdct=False,
        fastupsample=True,
        min_height=0 if shrink == 1 else height,
        min_width=0 if shrink == 1 else width,
        min_factor=min(shrink, 2),
        buffer=scratch if fits else None,
    )


def shrink_for(factor: float) -> int:
    """Return the largest shrink (1, 2, 4, 8) that keeps the share `factor` of the resolution."""
    return next((s for s in (8, 4, 2) if factor * s <= 1.0), 1)


def decode_png(data: bytes, what: str) -> np.ndarray | None:
    """Return a PNG's values as they are stored, None for damaged ones; BadSample as `require_size`."""
    if data[:4] != PNG_MAGIC:
        return None
    require_size(data, None, what)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def decode_labels(data: bytes, size: Size | None = None) -> np.ndarray:
    """Return the label of every pixel, uint8 [H, W]; BadSample where `data` is no mask of that size."""
    require_size(data, size, "mask")
    if data[:4] == PNG_MAGIC and data[PNG_COLOUR_TYPE] == PNG_GRAY:
        mask = decode_png(data, "mask")
    else:
        try:
            mask = np.array(open_picture(data))
        except (OSError, ValueError, SyntaxError) as error:
            raise BadSample(f"unreadable mask: {error}") from None
    if mask is None:
        raise BadSample("unreadable mask")
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise BadSample(f"mask of shape {mask.shape} and type {mask.dtype}, wanted one uint8 channel")
    return mask
