"""Whatever a user may give for a picture, as the bytes that a shard would hold of it.

From there on a picture goes the way of the evaluation's: the same decoder, the same resizing.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ufo_large.data.stored_sample import Transcode, encode_picture
from ufo_large.media.decode import decode_image
from ufo_large.media.pictures import asks_to_turn, in_8_bits, inspect_file, picture_facts
from ufo_large.structures import RawSample, SampleInfo

Source = str | os.PathLike | bytes | Image.Image | np.ndarray
NO_LABELS = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One picture: encoded `data`, and `raw`, what a shard's reader would return of it.

    `turned`: an EXIF tag asks viewers to turn it, which neither training nor prediction does.
    """

    raw: RawSample
    turned: bool = False

    @property
    def sample(self) -> SampleInfo:
        return self.raw.sample

    def pixels(self) -> np.ndarray:
        """Return RGB, uint8 [H, W, 3]."""
        return decode_image(self.raw.image)


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """What a user gave, the name to answer under, and its 1-based number."""

    source: Source
    name: str
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Unread:
    """A picture that cannot be read, and why."""

    name: str
    number: int
    error: str


def named(sources: Sequence[Source]) -> list[Named]:
    """Number pictures and name them after their files. Raises TypeError for what cannot be a picture."""
    return [Named(source=s, name=_name_of(s, i), number=i) for i, s in enumerate(sources, 1)]


def _name_of(source: Source, number: int) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, Image.Image):
        return getattr(source, "filename", "") or f"image {number}"
    if isinstance(source, (bytes, np.ndarray)):
        return f"image {number}"
    told = "give a path, a file's bytes, a PIL image or a NumPy array"
    raise TypeError(f"{type(source).__name__} is no picture; {told}")


def read_picture(given: Named) -> Picture | Unread:
    """Read a picture. What is wrong with a file is returned; ValueError is for arrays that are no picture."""
    source = given.source
    if isinstance(source, bytes):
        return _from_file(source, given)
    if isinstance(source, (str, os.PathLike)):
        return _from_file(Path(source), given)
    turned = isinstance(source, Image.Image) and asks_to_turn(source)
    try:  # PIL reads a file only now
        pixels = np.asarray(in_8_bits(source).convert("RGB")) if isinstance(source, Image.Image) else source
    except (OSError, SyntaxError) as error:
        return Unread(name=given.name, number=given.number, error=f"unreadable ({error})")
    pixels_HW3 = _checked(pixels, given.name)
    height, width = pixels_HW3.shape[:2]
    return Picture(raw=_raw(given, _lossless(pixels_HW3), height, width), turned=turned)


def _from_file(file: Path | bytes, given: Named) -> Picture | Unread:
    facts = inspect_file(file, picture_facts)
    if facts.error:
        return Unread(name=given.name, number=given.number, error=facts.error)
    data = encode_picture(file if isinstance(file, bytes) else file.read_bytes(), facts, Transcode()).image
    return Picture(raw=_raw(given, data, facts.height, facts.width), turned=facts.turned)


def _checked(pixels: np.ndarray, name: str) -> np.ndarray:
    """Return RGB of an array [H, W], or [H, W, 3]; ValueError says what else it is."""
    if pixels.ndim == 2 and pixels.dtype == np.uint8:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        told = f"an array of {pixels.dtype} {list(pixels.shape)}"
        raise ValueError(f"{name}: {told}; give uint8 [height, width, 3] in RGB order, or [height, width]")
    return pixels


def _lossless(pixels_HW3: np.ndarray) -> bytes:
    """Encode as BMP, whose bytes are the pixels: nothing is lost, and hardly any time."""
    done, data = cv2.imencode(".bmp", cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"cannot encode a picture of shape {list(pixels_HW3.shape)}")
    return data.tobytes()


def _raw(given: Named, data: bytes, height: int, width: int) -> RawSample:
    sample = SampleInfo(
        key=f"{given.number:09d}",
        file_name=given.name,
        height=height,
        width=width,
        image_id=given.number,
        order=given.number - 1,
    )
    return RawSample(image=data, sample=sample, labeled=False, labels=NO_LABELS)
