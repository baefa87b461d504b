"""Look into a picture or mask file once: is it whole, how large, what does it hold."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from ufo_large.media.opening import open_picture, stated_size

HASH_SIDE = 8
LOOK_SIDE = 16
SMALL_SIDE = 128
EXIF_BYTES = 4096
EXIF_MARKS = (b"Exif", b"eXIf")
EXIF_ANYWHERE = (b"RIFF",)  # WebP has it behind the pixels too
STORED_AS_IS = ("jpeg", "png")
SCALED_TO_16_BITS = ("PNG", "PPM")  # formats whose pictures in PIL's mode I go from 0 to 65535


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFacts:
    """What one file holds.

    `error` is empty for a whole file, else says what is wrong. `format` is jpeg, png, or another PIL name;
    a JPEG in CMYK is "jpeg-cmyk". `sha256` is of the bytes. `dhash` (difference hash, 64 bits) and `look`
    (16x16 grey values in hex) tell pictures that look alike. `turned`: an EXIF tag asks viewers to turn
    or mirror it, which training does not (Pillow itself turns a TIFF). `values` (masks only) counts pixels by
    grey or palette value, by 0xRRGGBB in a colour mask.
    """

    error: str = ""
    format: str = ""
    height: int = 0
    width: int = 0
    sha256: str = ""
    dhash: int = 0
    look: str = ""
    turned: bool = False
    values: dict[int, int] = field(default_factory=dict)


Look = Callable[[bytes], FileFacts]
"""A module's function that looks into the bytes of a file; ValueError or OSError for a bad one."""


def inspect_file(file: Path | bytes, look: Look) -> FileFacts:
    """Read one file in full (or take its bytes) and look into it; never raises for what is in it."""
    try:
        return look(file if isinstance(file, bytes) else file.read_bytes())
    except (OSError, ValueError, SyntaxError) as error:
        return FileFacts(error=_reason(error))


def _reason(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that can be read"
    if "remature end" in text or "truncated" in text.lower():
        return f"truncated ({text})"
    return f"unreadable ({text})"


def picture_facts(data: bytes) -> FileFacts:
    if not data:
        raise ValueError("empty file")
    stated_size(data)  # refuses too many pixels
    if data[:2] == b"\xff\xd8":
        kind, height, width, gray = _decode_jpeg_small(data)
    else:
        kind, height, width, gray = _decode_other(data)
    return FileFacts(
        format=kind,
        height=height,
        width=width,
        sha256=hashlib.sha256(data).hexdigest(),
        dhash=difference_hash(gray),
        turned=_is_turned(data),
        look=_shrink(gray, LOOK_SIDE, LOOK_SIDE).tobytes().hex(),
    )


def _decode_jpeg_small(data: bytes) -> tuple[str, int, int, np.ndarray]:
    """Decode every coefficient, but at a smaller size: enough to see a cut file and to know a copy."""
    height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    if colors in ("CMYK", "YCCK"):
        return ("jpeg-cmyk", *_decode_other(data)[1:])
    try:
        gray = simplejpeg.decode_jpeg(
            data, "GRAY", fastdct=True, min_height=SMALL_SIDE, min_width=SMALL_SIDE, min_factor=1
        )
    except ValueError as error:
        if "remature" in str(error):
            raise
        gray = _decode_other(data)[3][..., None]  # a warning that PIL can live with
    return "jpeg", height, width, gray[..., 0]


def _decode_other(data: bytes) -> tuple[str, int, int, np.ndarray]:
    with open_picture(data) as image:
        kind = (image.format or "").lower()
        image.load()
        if kind == "png" and image.mode.startswith("I"):
            kind = "png-16"
        return kind, image.height, image.width, np.asarray(in_8_bits(image).convert("L"))


def in_8_bits(image: Image.Image) -> Image.Image:
    """Scale a grey picture of 16 bits to 8, return any other as it is.

    Raises ValueError for floats and for whole numbers that are signed or of 32 bits: no file says which of
    them is white.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SCALED_TO_16_BITS):
        return Image.fromarray((np.asarray(image) / 257).round().clip(0, 255).astype(np.uint8))
    if image.mode in ("F", "I"):
        kind = f"PIL mode {image.mode}: 32 bits or signed, so white is unknown"
        raise ValueError(f"{kind}; convert it to 8 or 16 bits, unsigned")
    return image


def _is_turned(data: bytes) -> bool:
    if data[:4] not in EXIF_ANYWHERE and not any(mark in data[:EXIF_BYTES] for mark in EXIF_MARKS):
        return False
    try:
        with open_picture(data) as image:
            return asks_to_turn(image)
    except Exception:  # Pillow refuses what another decoder read
        return False


def asks_to_turn(image: Image.Image) -> bool:
    """Whether an EXIF tag of an opened picture asks viewers to turn or mirror what is decoded.

    A TIFF's does not: its orientation is part of the format, and Pillow, which decodes it, applies it.
    """
    try:
        return image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # PIL raises anything on a damaged EXIF block, which no one else reads
        return False


def difference_hash(gray_HW: np.ndarray) -> int:
    """Return 64 bits, one a cell of an 8x8 grid: is its right neighbour brighter? Copies share most."""
    small = _shrink(gray_HW, HASH_SIDE + 1, HASH_SIDE)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _shrink(gray_HW: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(gray_HW, (width, height), interpolation=cv2.INTER_AREA)


def mask_facts(data: bytes) -> FileFacts:
    """Look into a map of grey or palette values."""
    return _map_facts(data, colored=False)


def color_mask_facts(data: bytes) -> FileFacts:
    """Look into a mask whose colours are classes."""
    return _map_facts(data, colored=True)


def _map_facts(data: bytes, colored: bool) -> FileFacts:
    values_HW = mask_values(data, colored)
    values, counts = np.unique(values_HW, return_counts=True)
    return FileFacts(
        format="png" if data[:4] == b"\x89PNG" else "other",
        height=values_HW.shape[0],
        width=values_HW.shape[1],
        sha256=hashlib.sha256(data).hexdigest(),
        values=dict(zip(values.tolist(), counts.tolist(), strict=True)),
    )


def mask_values(data: bytes, colored: bool = False) -> np.ndarray:
    """Return the values [H, W] of a user's mask: grey or palette values, 0xRRGGBB where `colored`.

    Grey values may stand in three equal channels. Raises ValueError where they differ and `colored` is False,
    and what PIL raises for what is no picture.
    """
    with open_picture(data) as image:
        image.load()
        if not colored and (image.mode in ("L", "P", "1") or image.mode.startswith("I")):
            values = np.asarray(image)
            return values.astype(np.uint8) if image.mode == "1" else values
        rgb = np.asarray(image.convert("RGB")).astype(np.int32)
    if colored:
        return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    if (rgb != rgb[..., :1]).any():
        raise ValueError("it has colours, where every pixel should hold a class number")
    return rgb[..., 0]


def is_plain_mask(data: bytes) -> bool:
    """True for an 8-bit grey PNG, whose bytes can be stored as they are."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:26] == b"\x08\x00"


def decode_rgb(data: bytes) -> np.ndarray:
    """Decode a whole picture to uint8 RGB [H, W, 3], without turning it by its EXIF tag."""
    stated_size(data)  # refuses too many pixels
    if data[:2] == b"\xff\xd8" and simplejpeg.decode_jpeg_header(data)[2] not in ("CMYK", "YCCK"):
        return simplejpeg.decode_jpeg(data, "RGB", strict=False)
    with open_picture(data) as image:
        return np.asarray(in_8_bits(image).convert("RGB"))


def encode_jpeg(rgb_HW3: np.ndarray, quality: int) -> bytes:
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb_HW3), quality=quality, colorspace="RGB", fastdct=False
    )


def encode_mask(labels_HW: np.ndarray) -> bytes:
    """Encode uint8 labels as a grey PNG."""
    done, png = cv2.imencode(".png", np.ascontiguousarray(labels_HW, dtype=np.uint8))
    if not done:
        raise ValueError(f"cannot encode a mask of shape {labels_HW.shape} as PNG")
    return png.tobytes()
