"""Augmentation for classification: crops, flips, colour, RandAugment, erasing, MixUp and CutMix."""

import math
from dataclasses import dataclass, replace

import torch
from torchvision.transforms import v2

from ufo_large.data.shards import SplitReader
from ufo_large.data.transforms.appearance import check_range, check_share, colour_jitter, mirrored, repainted
from ufo_large.data.transforms.base import Transform, View, chance, log_uniform, pick, uniform
from ufo_large.data.transforms.window import fit, load, scaled
from ufo_large.structures import RawSample, TaskBatch, TaskInfo, Window

CROP_ATTEMPTS = 10


class ClassificationTransform(Transform):
    """Random resized crop (Szegedy et al. 2014, arXiv:1409.4842) and what the config adds to it.

    The crop is cut before it is scaled, and the JPEG is decoded no larger than the crop needs.
    """

    name = "classification"
    kinds = ("classification",)

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Transform.Config):
        """`scale`: share of the image's area in the crop; `ratio`: its width over height before scaling.

        `flip`: probability of mirroring. `colour`: strength of colour jitter. `rand_augment`: magnitude
        1..30 of two RandAugment operations (Cubuk et al. 2019, arXiv:1909.13719), 0 = off. `erasing`:
        probability of blanking a rectangle. `mixup, cutmix`: alpha of the Beta distribution
        (arXiv:1710.09412, arXiv:1905.04899), 0 = off; with both on each batch takes one of them at
        random.
        """

        scale: tuple[float, float] = (0.35, 1.0)
        ratio: tuple[float, float] = (0.75, 1.3333)
        flip: float = 0.5
        colour: float = 0.2
        rand_augment: int = 0
        erasing: float = 0.0
        mixup: float = 0.0
        cutmix: float = 0.0

        def __post_init__(self):
            check_range("scale", self.scale)
            check_range("ratio", self.ratio)
            check_share("largest scale", self.scale[1])
            check_share("flip", self.flip)
            check_share("erasing", self.erasing)
            if min(self.colour, self.mixup, self.cutmix) < 0:
                raise ValueError(
                    f"colour {self.colour}, mixup {self.mixup}, cutmix {self.cutmix}: not negative"
                )
            if not 0 <= self.rand_augment <= 30:
                raise ValueError(f"rand_augment {self.rand_augment} is not in 0..30")

        def build(self, reader: SplitReader, info: TaskInfo, keep_aspect: bool) -> "ClassificationTransform":
            return ClassificationTransform(self, info, keep_aspect)

    def __init__(self, config: Config, info: TaskInfo, keep_aspect: bool):
        self.config, self.info, self.keep_aspect = config, info, keep_aspect
        steps = colour_jitter(config.colour)
        if config.rand_augment:
            steps.append(v2.RandAugment(num_ops=2, magnitude=config.rand_augment))
        if config.erasing:
            steps.append(v2.RandomErasing(p=config.erasing))
        self.appearance = steps
        self.mixers = [
            mixer(alpha=alpha, num_classes=info.num_classes)
            for mixer, alpha in ((v2.MixUp, config.mixup), (v2.CutMix, config.cutmix))
            if alpha > 0
        ]

    def __call__(self, raw: RawSample, canvas: tuple[int, int]) -> View:
        top, left, height, width = self._crop(raw.sample.height, raw.sample.width)
        factor_y, factor_x = fit(height, width, canvas, self.keep_aspect)
        out = scaled(height, factor_y, canvas[0]), scaled(width, factor_x, canvas[1])
        view = load(raw, Window(top, left, height, width, *out), self.info)
        if chance(self.config.flip):
            view = mirrored(view)
        view.image = repainted(view.image, self.appearance)
        return view

    def _crop(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Draw (top, left, height, width); the whole image when no drawn crop fits into it."""
        for _ in range(CROP_ATTEMPTS):
            area = height * width * uniform(*self.config.scale)
            ratio = log_uniform(*self.config.ratio)
            crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top, left = pick(height - crop_height + 1), pick(width - crop_width + 1)
                return top, left, crop_height, crop_width
        return 0, 0, height, width

    def mix(self, batch: TaskBatch) -> TaskBatch:
        """Mix each image with its neighbour; `soft_BK` holds the mixed labels, `labels_B` the own ones."""
        if not self.mixers or batch.targets is None:
            return batch
        mixer = self.mixers[pick(len(self.mixers))]
        images, soft_BK = mixer(batch.images_BCHW.float(), batch.targets.labels_B)
        images = images.round().clamp(0, 255).to(torch.uint8)
        return replace(batch, images_BCHW=images, targets=replace(batch.targets, soft_BK=soft_BK))
