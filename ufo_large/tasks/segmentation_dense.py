"""Label every pixel with one light convolutional head over the pyramid.

Legend: B images, P pyramid width, W head width, K classes, H W height and width of a map.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ufo_large.losses import multiclass_dice, pixel_cross_entropy
from ufo_large.structures import (
    IGNORE_INDEX,
    Features,
    MaskPrediction,
    TaskBatch,
    TaskInfo,
)
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.mask_resize import check_label_range, input_labels, mask_predictions
from ufo_large.tasks.pyramid_fusion import PyramidFusion, enlarge


class DenseSegmenter(TaskHead):
    """Fuse the levels at the finest stride, classify each cell there, enlarge the logits.

    The loss is taken at the input's full size.
    """

    kind = "segmentation"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(TaskHead.Config):
        """`width`: channels (None: the pyramid's); `num_convs`: 3x3 convolutions after the sum.

        `dice_weight` adds the multi-class Dice loss. `class_weights`: one factor a class in the
        cross-entropy, for example from `losses.inverse_frequency_weights`.
        """

        strides: tuple[int, ...] = (4, 8, 16)
        width: int | None = None
        num_convs: int = 1
        dropout: float = 0.0
        dice_weight: float = 0.0
        class_weights: tuple[float, ...] | None = None

        def __post_init__(self):
            if not self.strides or list(self.strides) != sorted(set(self.strides)):
                raise ValueError(f"strides={self.strides}: name at least one pyramid stride, finest first")
            if self.num_convs < 1:
                raise ValueError(f"num_convs={self.num_convs}: choose 1 or more")
            if not 0 <= self.dropout < 1:
                raise ValueError(f"dropout={self.dropout}: choose a value from 0 to below 1")
            if self.dice_weight < 0 or any(w < 0 for w in self.class_weights or ()):
                raise ValueError("dice_weight and class_weights: choose values of 0 or more")

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "DenseSegmenter":
            return DenseSegmenter(self, info, pyramid_width)

    def __init__(self, config: Config, info: TaskInfo, pyramid_width: int):
        super().__init__(info)
        _check(config, info)
        self.config = config
        self.strides = config.strides
        width = config.width or pyramid_width
        self.fuse = PyramidFusion(self.strides, pyramid_width, width, config.num_convs)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classify = nn.Conv2d(width, info.num_classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return `logits_BKHW` at the finest stride."""
        fused_BWHW = self.fuse([features.pyramid[stride] for stride in self.strides])
        return {"logits_BKHW": self.classify(self.dropout(fused_BWHW))}

    def losses(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `cross_entropy`, and `dice` if it has a weight."""
        masks_BHW = batch.targets.masks_BHW.long()
        self.watch.note({"logits": outputs["logits_BKHW"]})
        height, width = masks_BHW.shape[-2:]
        logits_BKHW = enlarge(outputs["logits_BKHW"].float(), self.strides[0])[..., :height, :width]
        weights_K = self.config.class_weights
        if weights_K is not None:
            weights_K = torch.tensor(weights_K).to(logits_BKHW.device, non_blocking=True)
        losses = {"cross_entropy": pixel_cross_entropy(logits_BKHW, masks_BHW, IGNORE_INDEX, weights_K)}
        if self.config.dice_weight:
            losses["dice"] = self.config.dice_weight * multiclass_dice(logits_BKHW, masks_BHW, IGNORE_INDEX)
        return self.watch.losses(losses)

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: TaskBatch) -> list[MaskPrediction]:
        return mask_predictions(outputs["logits_BKHW"], self.strides[0], batch, are_logits=True)

    def graph_outputs(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `labels`, int64 [B, H, W]."""
        return input_labels(outputs["logits_BKHW"], self.strides[0], batch)


def _check(config: DenseSegmenter.Config, info: TaskInfo) -> None:
    check_label_range(info)
    if config.class_weights is not None and len(config.class_weights) != info.num_classes:
        raise ValueError(
            f"task {info.name!r}: {len(config.class_weights)} class_weights for {info.num_classes} classes"
        )
