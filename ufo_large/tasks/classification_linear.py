"""Classify an image with one linear layer on its pooled feature.

Legend: B images, D trunk width, K classes.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ufo_large.structures import ClassPrediction, Features, TaskBatch, TaskInfo
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.class_targets import class_predictions, class_probabilities


class LinearClassifier(TaskHead):
    """Dropout, one linear layer, cross-entropy with label smoothing (arXiv:1512.00567, section 7)."""

    kind = "classification"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(TaskHead.Config):
        """`dropout` acts on the pooled feature; `label_smoothing` is left out where labels are mixed."""

        dropout: float = 0.0
        label_smoothing: float = 0.1

        def __post_init__(self):
            for name in ("dropout", "label_smoothing"):
                if not 0 <= getattr(self, name) < 1:
                    raise ValueError(f"{name}={getattr(self, name)}: choose a value from 0 to below 1")

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "LinearClassifier":
            return LinearClassifier(self, info, trunk_width)

    def __init__(self, config: Config, info: TaskInfo, trunk_width: int):
        super().__init__(info)
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(trunk_width, info.num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return `logits_BK`."""
        return {"logits_BK": self.linear(self.dropout(features.pooled_BD))}

    def losses(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `cross_entropy`."""
        mixed = batch.targets.soft_BK is not None
        loss = F.cross_entropy(
            outputs["logits_BK"].float(),
            class_probabilities(batch.targets, self.info.num_classes),
            label_smoothing=0.0 if mixed else self.config.label_smoothing,
        )
        return self.watch.losses({"cross_entropy": loss})

    def predict(self, outputs: dict[str, Tensor], batch: TaskBatch) -> list[ClassPrediction]:
        return class_predictions(outputs["logits_BK"], batch)

    def graph_outputs(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `probabilities`, float32 [B, K]."""
        return {"probabilities": outputs["logits_BK"].float().softmax(-1)}
