"""What a shard keeps of one example: the user's own bytes, or a smaller picture with its boxes and mask."""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from ufo_large.data.datasets.base import Example
from ufo_large.media.pictures import (
    STORED_AS_IS,
    FileFacts,
    mask_values,
    decode_rgb,
    encode_jpeg,
    encode_mask,
    is_plain_mask,
)
from ufo_large.data.seekable import make_seekable

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
    """One sample as stored; `example` has its boxes in pixels of the stored picture."""

    example: Example
    image: bytes
    extension: str
    height: int
    width: int
    mask: bytes = b""
    pixels: dict[int, int] = field(default_factory=dict)


def store(example: Example, facts: FileFacts, transcode: Transcode) -> StoredSample:
    """Read an example's files and return what goes into the shard: the user's bytes where possible."""
    data = example.image.read_bytes()
    mask = None if example.mask is None else example.mask.read_bytes()
    sample = _encode_picture(example, data, facts, transcode)
    if transcode.seekable:
        sample.image = make_seekable(sample.image)
    if mask is not None:
        sample.mask, sample.pixels = _encode_mask(example, mask, (sample.height, sample.width))
    return sample


def _encode_picture(example: Example, data: bytes, facts: FileFacts, transcode: Transcode) -> StoredSample:
    height, width = facts.height, facts.width
    scale = 1.0 if transcode.short_side is None else min(1.0, transcode.short_side / min(height, width))
    if scale == 1 and facts.format in STORED_AS_IS:
        return StoredSample(example, data, {"jpeg": "jpg"}.get(facts.format, facts.format), height, width)
    rgb = decode_rgb(data)
    if scale == 1:
        return StoredSample(example, encode_jpeg(rgb, FULL_SIZE_QUALITY), "jpg", height, width)
    new_size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smaller = cv2.resize(rgb, new_size, interpolation=cv2.INTER_AREA)
    boxes = _scale_boxes(example, (new_size[0] / width, new_size[1] / height))
    return StoredSample(boxes, encode_jpeg(smaller, transcode.quality), "jpg", new_size[1], new_size[0])


def _scale_boxes(example: Example, ratios: tuple[float, float]) -> Example:
    if not example.boxes:
        return example
    x, y = ratios
    boxes = (
        replace(
            b,
            xyxy=tuple(v * s for v, s in zip(b.xyxy, (x, y, x, y), strict=True)),
            area=None if b.area is None else b.area * x * y,
        )
        for b in example.boxes
    )
    return replace(example, boxes=tuple(boxes))


def _encode_mask(example: Example, data: bytes, size: tuple[int, int]) -> tuple[bytes, dict[int, int]]:
    values = mask_values(data, colored=example.mask_coding.colors is not None)
    labels = example.mask_coding.labels_of(values).astype(np.uint8)
    if labels.shape != size:
        labels = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    unchanged = labels.shape == values.shape and (labels == values).all() and is_plain_mask(data)
    found, counts = np.unique(labels[labels != 255], return_counts=True)
    return data if unchanged else encode_mask(labels), dict(zip(found.tolist(), counts.tolist(), strict=True))
