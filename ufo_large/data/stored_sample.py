"""What a shard keeps of one example: the user's own bytes, or a smaller picture with its boxes and mask."""

from dataclasses import dataclass, field

import cv2

from ufo_large.data.seekable import make_seekable
from ufo_large.kinds import Kind, Stored, StoredPicture
from ufo_large.media.pictures import STORED_AS_IS, FileFacts, decode_rgb, encode_jpeg
from ufo_large.structures import Example

FULL_SIZE_QUALITY = 95


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcode:
    """Scale pictures down to `short_side` pixels and store them as JPEG; None keeps their size.

    `seekable`: put restart markers into JPEGs, so that training decodes no more than a crop of them; no pixel
    changes. Without both the user's own bytes are stored.
    """

    short_side: int | None = None
    quality: int = 90
    seekable: bool = False

    def __post_init__(self):
        if self.short_side is not None and self.short_side < 16:
            raise ValueError(f"--short-side {self.short_side}: at least 16 pixels")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"--quality {self.quality}: 1 to 100")


@dataclass(slots=True)
class StoredSample:
    """One sample as stored: an encoded picture, and the truth in its pixels (empty where there is none)."""

    image: bytes
    extension: str
    picture: StoredPicture
    truth: Stored = field(default_factory=Stored)


def store(example: Example, kind: Kind, facts: FileFacts, transcode: Transcode) -> StoredSample:
    """Read an example's files and return what goes into the shard: the user's bytes where possible."""
    sample = encode_picture(example.image.read_bytes(), facts, transcode)
    if transcode.seekable:
        sample.image = make_seekable(sample.image)
    if example.labeled:
        sample.truth = kind.stored(example.truth, sample.picture)
    return sample


def encode_picture(data: bytes, facts: FileFacts, transcode: Transcode) -> StoredSample:
    """Return a picture file as a shard holds it, without a truth."""
    height, width = facts.height, facts.width
    scale = 1.0 if transcode.short_side is None else min(1.0, transcode.short_side / min(height, width))
    whole = StoredPicture(size=(height, width))
    if scale == 1 and facts.format in STORED_AS_IS:
        return StoredSample(data, {"jpeg": "jpg"}.get(facts.format, facts.format), whole)
    rgb = decode_rgb(data)
    if scale == 1:
        return StoredSample(encode_jpeg(rgb, FULL_SIZE_QUALITY), "jpg", whole)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    smaller = cv2.resize(rgb, (new_width, new_height), interpolation=cv2.INTER_AREA)
    picture = StoredPicture(size=(new_height, new_width), ratio=(new_height / height, new_width / width))
    return StoredSample(encode_jpeg(smaller, transcode.quality), "jpg", picture)
