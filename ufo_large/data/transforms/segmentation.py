"""Augmentation for segmentation: large-scale jitter with crops that show several classes, flip, colour."""

from dataclasses import dataclass

import numpy as np

from ufo_large.data.shards import SplitReader
from ufo_large.data.transforms.appearance import check_range, check_share, colour_jitter, mirrored, repainted
from ufo_large.data.transforms.base import Transform, View, chance, log_uniform
from ufo_large.data.transforms.jitter import jittered_window
from ufo_large.data.transforms.window import load
from ufo_large.media.decode import decode_labels
from ufo_large.structures import IGNORE_INDEX, RawSample, TaskInfo, Window

CROP_ATTEMPTS = 10


class SegmentationTransform(Transform):
    """Random zoom and crop of image and mask."""

    name = "segmentation"
    kinds = ("segmentation",)

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Transform.Config):
        """`scale`: zoom drawn log-uniformly; 1 fills the canvas, above it the image is cropped.

        `max_share`: a crop in which one class takes more than this share of the labelled pixels is drawn
        anew, up to ten times; 1 takes every crop. `flip`: probability of mirroring. `colour`: strength of
        colour jitter.
        """

        scale: tuple[float, float] = (0.7, 1.8)
        max_share: float = 0.75
        flip: float = 0.5
        colour: float = 0.2

        def __post_init__(self):
            check_range("scale", self.scale)
            check_share("max_share", self.max_share)
            check_share("flip", self.flip)
            if self.colour < 0:
                raise ValueError(f"colour {self.colour} must not be negative")

        def build(self, reader: SplitReader, info: TaskInfo, keep_aspect: bool) -> "SegmentationTransform":
            return SegmentationTransform(self, info, keep_aspect)

    def __init__(self, config: Config, info: TaskInfo, keep_aspect: bool):
        self.config, self.info, self.keep_aspect = config, info, keep_aspect
        self.colour = colour_jitter(config.colour)

    def __call__(self, raw: RawSample, canvas: tuple[int, int]) -> View:
        view = load(raw, self._window(raw, canvas), self.info)
        if chance(self.config.flip):
            view = mirrored(view)
        view.image = repainted(view.image, self.colour)
        return view

    def _window(self, raw: RawSample, canvas: tuple[int, int]) -> Window:
        size = (raw.sample.height, raw.sample.width)
        zoom = log_uniform(*self.config.scale)
        window = jittered_window(size, canvas, zoom, self.keep_aspect)
        if self.config.max_share == 1 or raw.target is None or (window.height, window.width) == size:
            return window
        mask = decode_labels(raw.target, size)
        for _ in range(CROP_ATTEMPTS - 1):
            if largest_share(mask, window) <= self.config.max_share:
                break
            window = jittered_window(size, canvas, zoom, self.keep_aspect)
        return window


def largest_share(mask_HW: np.ndarray, window: Window) -> float:
    """Return the share of the most frequent class among the labelled pixels of the window."""
    counts = np.bincount(window.cut(mask_HW).reshape(-1), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    return counts.max() / max(1, counts.sum())
