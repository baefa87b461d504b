"""Augmentation for depth estimation: flip and colour. No zoom, since a larger picture would seem nearer."""

from dataclasses import dataclass

from ufo_large.data.shards import SplitReader
from ufo_large.data.transforms.appearance import check_share, colour_jitter, mirrored, repainted
from ufo_large.data.transforms.base import Transform, View, chance
from ufo_large.data.transforms.window import load, whole_window
from ufo_large.structures import RawSample, TaskInfo


class DepthTransform(Transform):
    """The whole image on the canvas, mirrored or not, its colours shifted."""

    name = "depth"
    kinds = ("depth",)

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Transform.Config):
        """`flip`: probability of mirroring. `colour`: strength of colour jitter."""

        flip: float = 0.5
        colour: float = 0.2

        def __post_init__(self):
            check_share("flip", self.flip)
            if self.colour < 0:
                raise ValueError(f"colour {self.colour} must not be negative")

        def build(self, reader: SplitReader, info: TaskInfo, keep_aspect: bool) -> "DepthTransform":
            return DepthTransform(self, info, keep_aspect)

    def __init__(self, config: Config, info: TaskInfo, keep_aspect: bool):
        self.config, self.info, self.keep_aspect = config, info, keep_aspect
        self.colour = colour_jitter(config.colour)

    def __call__(self, raw: RawSample, canvas: tuple[int, int]) -> View:
        view = load(
            raw, whole_window(raw.sample.height, raw.sample.width, canvas, self.keep_aspect), self.info
        )
        if chance(self.config.flip):
            view = mirrored(view)
        view.image = repainted(view.image, self.colour)
        return view
