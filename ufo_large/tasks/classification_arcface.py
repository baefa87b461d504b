"""Classify an image by the angle between its pooled feature and one direction a class (ArcFace).

Legend: B images, D trunk width, K classes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ufo_large.losses import additive_angular_margin
from ufo_large.structures import ClassPrediction, Features, TaskBatch, TaskInfo
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.class_targets import class_predictions, class_probabilities


class ArcFaceClassifier(TaskHead):
    """Cosine similarities, a margin on the right class while training, cross-entropy (arXiv:1801.07698).

    Good where classes look alike and images a class are few: a class keeps an angle of `margin` to its
    neighbours. Mixed labels get their share of the margin.
    """

    kind = "classification"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(TaskHead.Config):
        """`scale` multiplies the cosines before the softmax; `margin` is an angle in radians."""

        scale: float = 30.0
        margin: float = 0.3

        def __post_init__(self):
            if self.scale <= 0:
                raise ValueError(f"scale={self.scale}: choose a value above 0, usually 16 to 64")
            if not 0 <= self.margin < 1.57:
                raise ValueError(f"margin={self.margin}: choose an angle from 0 to below pi/2, in radians")

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "ArcFaceClassifier":
            return ArcFaceClassifier(self, info, trunk_width)

    def __init__(self, config: Config, info: TaskInfo, trunk_width: int):
        super().__init__(info)
        self.config = config
        self.directions = _CosineLinear(trunk_width, info.num_classes, bias=False)
        nn.init.normal_(self.directions.weight, std=trunk_width**-0.5)  # rows of length about 1

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return `cosine_BK`, float32."""
        return {"cosine_BK": self.directions(features.pooled_BD)}

    def losses(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `cross_entropy`."""
        targets_BK = class_probabilities(batch.targets, self.info.num_classes)
        logits_BK = additive_angular_margin(outputs["cosine_BK"].float(), targets_BK, self.config.margin)
        loss = F.cross_entropy(self.config.scale * logits_BK, targets_BK)
        return self.watch.losses({"cross_entropy": loss})

    def predict(self, outputs: dict[str, Tensor], batch: TaskBatch) -> list[ClassPrediction]:
        return class_predictions(self.config.scale * outputs["cosine_BK"].float(), batch)

    def graph_outputs(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `probabilities`, float32 [B, K]."""
        return {"probabilities": (self.config.scale * outputs["cosine_BK"]).float().softmax(-1)}


class _CosineLinear(nn.Linear):
    """Cosines between inputs and weight rows, in float32: in bfloat16 two near classes would tie."""

    def forward(self, x_BD: Tensor) -> Tensor:
        with torch.autocast(x_BD.device.type, enabled=False):
            return F.linear(F.normalize(x_BD.float()), F.normalize(self.weight.float()))
