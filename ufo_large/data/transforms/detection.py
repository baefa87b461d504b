"""Augmentation for detection: crops around small objects, mosaic, copy-paste, flip, colour."""

from dataclasses import dataclass

import torch
from torchvision import tv_tensors

from ufo_large.data.shards import SplitReader
from ufo_large.data.transforms.appearance import check_range, check_share, colour_jitter, mirrored, repainted
from ufo_large.data.transforms.base import Transform, View, chance, log_uniform, pick, uniform
from ufo_large.data.transforms.copy_paste import RareObjects, paste
from ufo_large.data.transforms.jitter import jittered_window
from ufo_large.data.transforms.window import load
from ufo_large.structures import BadSample, RawSample, TaskInfo

MOSAIC_SPLIT = (0.3, 0.7)


class DetectionTransform(Transform):
    """Large-scale jitter (Ghiasi et al. 2020, arXiv:2012.07177) and what the config adds to it."""

    name = "detection"
    kinds = ("detection",)

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Transform.Config):
        """`scale`: zoom drawn log-uniformly; 1 fills the canvas, above it the image is cropped.

        `focus`: probability that a crop is placed around a random object, so that small ones are not
        lost. `flip`: probability of mirroring; 0 by default because traffic signs read from left to
        right. `mosaic`: probability of joining four images (arXiv:2004.10934). `copy_paste`: objects of
        rare classes pasted into an image. `colour`: strength of colour jitter.
        """

        scale: tuple[float, float] = (0.6, 1.6)
        focus: float = 0.5
        flip: float = 0.0
        mosaic: float = 0.0
        copy_paste: int = 0
        colour: float = 0.2

        def __post_init__(self):
            check_range("scale", self.scale)
            for name in ("focus", "flip", "mosaic"):
                check_share(name, getattr(self, name))
            if self.copy_paste < 0 or self.colour < 0:
                raise ValueError(
                    f"copy_paste {self.copy_paste} and colour {self.colour} must not be negative"
                )

        def build(self, reader: SplitReader, info: TaskInfo, keep_aspect: bool) -> "DetectionTransform":
            return DetectionTransform(self, reader, info, keep_aspect)

    def __init__(self, config: Config, reader: SplitReader, info: TaskInfo, keep_aspect: bool):
        self.config, self.reader, self.info, self.keep_aspect = config, reader, info, keep_aspect
        self.colour = colour_jitter(config.colour)
        self.rare = RareObjects(reader, info) if config.copy_paste else None

    def __call__(self, raw: RawSample, canvas: tuple[int, int]) -> View:
        view = self._mosaic(raw, canvas) if chance(self.config.mosaic) else self._view(raw, canvas)
        if self.rare is not None:
            for _ in range(self.config.copy_paste):
                patch = self.rare.draw(canvas, self.keep_aspect)
                view = view if patch is None else paste(view, patch)
        if chance(self.config.flip):
            view = mirrored(view)
        view.image = repainted(view.image, self.colour)
        return view

    def _view(self, raw: RawSample, canvas: tuple[int, int], cover: tuple[int, int] | None = None) -> View:
        size = (raw.sample.height, raw.sample.width)
        boxes = raw.columns["boxes_xyxy"][~raw.columns["crowds"]]
        focused = chance(self.config.focus) and len(boxes) > 0
        focus = boxes[pick(len(boxes))] if focused else None
        zoom = log_uniform(*self.config.scale)
        return load(raw, jittered_window(size, canvas, zoom, self.keep_aspect, focus, cover), self.info)

    def _mosaic(self, raw: RawSample, canvas: tuple[int, int]) -> View:
        """Fill four quarters around a random point, the first with `raw`, the others with random images."""
        split_y, split_x = (round(side * uniform(*MOSAIC_SPLIT)) for side in canvas)
        image = torch.zeros(3, *canvas, dtype=torch.uint8)
        boxes, labels = [], []
        parts = _quarters(split_y, split_x, canvas)
        for (top, left, height, width), source in zip(parts, (raw, None, None, None), strict=True):
            part = self._part(source, canvas, (height, width))
            if part is None:
                continue
            image[:, top : top + height, left : left + width] = part.image
            boxes.append(part.targets["boxes"] + torch.tensor([left, top, left, top]))
            labels.append(part.targets["labels"])
        joined = tv_tensors.BoundingBoxes(torch.cat(boxes), format="XYXY", canvas_size=canvas)
        return View(image=tv_tensors.Image(image), targets={"boxes": joined, "labels": torch.cat(labels)})

    def _part(self, raw: RawSample | None, canvas: tuple[int, int], cover: tuple[int, int]) -> View | None:
        """Return a part of `raw`, or of a random sample; None (a black quarter) where that one is broken.

        A broken partner is reported when its own turn comes.
        """
        if raw is not None:
            return self._view(raw, canvas, cover)
        try:
            return self._view(self.reader.read(pick(len(self.reader))), canvas, cover)
        except BadSample:
            return None


def _quarters(split_y: int, split_x: int, canvas: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    rows = ((0, split_y), (split_y, canvas[0] - split_y))
    columns = ((0, split_x), (split_x, canvas[1] - split_x))
    return [(top, left, height, width) for top, height in rows for left, width in columns]
