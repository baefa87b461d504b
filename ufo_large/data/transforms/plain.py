"""Resize only: for evaluation, and for training without augmentation."""

from dataclasses import dataclass

from ufo_large.data.shards import SplitReader
from ufo_large.data.transforms.base import Transform, View
from ufo_large.data.transforms.window import load, whole_window
from ufo_large.structures import RawSample, TaskInfo


class PlainTransform(Transform):
    """Show the whole image on the canvas, stretched or with its aspect kept; no randomness."""

    name = "plain"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Transform.Config):
        """No options."""

        def build(self, reader: SplitReader, info: TaskInfo, keep_aspect: bool) -> "PlainTransform":
            return PlainTransform(info, keep_aspect)

    def __init__(self, info: TaskInfo, keep_aspect: bool):
        self.info, self.keep_aspect = info, keep_aspect

    def __call__(self, raw: RawSample, canvas: tuple[int, int]) -> View:
        window = whole_window(raw.sample.height, raw.sample.width, canvas, self.keep_aspect)
        return load(raw, window, self.info)
