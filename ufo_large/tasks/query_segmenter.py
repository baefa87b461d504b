"""What heads share that predict one mask per query and classify the query (MaskFormer, arXiv:2107.06278).

Legend: B images, Q queries, K classes, N predictions, H W height and width of a map.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ufo_large.structures import MaskPrediction, TaskBatch
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.class_masks import class_masks
from ufo_large.tasks.mask_resize import input_labels, mask_predictions

if TYPE_CHECKING:
    from transformers import EomtConfig, Mask2FormerConfig


class QuerySegmenter(TaskHead):
    """Cross-entropy on queries, cross-entropy and Dice on masks, summed over all predictions.

    Outputs: `class_logits` [B, N, Q, K + 1] (last: no object) and `mask_logits` [B, N, Q, H, W], cells of
    `mask_stride` pixels. Masks are compared at random points, more of them where the prediction is unsure, so
    two calls on the same outputs differ a little. A pixel to ignore belongs to no mask, as in the original:
    it counts as "not this class" for every query and no class can win it by training. Losses are divided by
    the number of masks of this rank's micro-batch, so the mean over ranks is the mean over micro-batches.
    """

    kind = "segmentation"
    mask_stride: float

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(TaskHead.Config):
        """`num_points`: points at which a predicted mask meets the true one."""

        num_queries: int = 100
        num_points: int = 12544
        class_weight: float = 2.0
        mask_weight: float = 5.0
        dice_weight: float = 5.0
        no_object_weight: float = 0.1

        def __post_init__(self):
            for name in ("class_weight", "mask_weight", "dice_weight", "no_object_weight"):
                if getattr(self, name) < 0:
                    raise ValueError(f"{name}={getattr(self, name)}: choose 0 or more")
            if not self.no_object_weight:
                raise ValueError("no_object_weight=0: an image without masks would have no loss; choose more")
            for name in ("num_queries", "num_points"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name}={getattr(self, name)}: choose 1 or more")

    @property
    @abstractmethod
    def loss_config(self) -> "Mask2FormerConfig | EomtConfig":
        """transformers' config, which says how points are sampled and what the losses weigh."""

    def losses(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `class`, `mask` and `dice`."""
        from ufo_large.tasks.mask_losses import mask_losses

        outputs = self.watch.cleaned({name: out.float() for name, out in outputs.items()})
        # true masks are padded to what the predicted ones cover: both are read at relative positions
        covered = tuple(int(cells * self.mask_stride) for cells in outputs["mask_logits"].shape[-2:])
        targets = class_masks(batch.targets.masks_BHW, covered)
        found = mask_losses(outputs["class_logits"], outputs["mask_logits"], targets, self.loss_config)
        return self.watch.losses(found)

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: TaskBatch) -> list[MaskPrediction]:
        return mask_predictions(_scores(outputs), self.mask_stride, batch)

    def graph_outputs(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `labels`, int64 [B, H, W]."""
        return input_labels(_scores(outputs), self.mask_stride, batch)


def _scores(outputs: dict[str, Tensor]) -> Tensor:
    """Return the score of a class at a pixel, [B, K, H, W]: sum over queries of P(class) P(pixel in mask)."""
    classes_BQK = outputs["class_logits"][:, -1].float().softmax(dim=-1)[..., :-1]
    masks_BQHW = outputs["mask_logits"][:, -1].float().sigmoid()
    with torch.autocast(masks_BQHW.device.type, enabled=False):
        return torch.einsum("bqk,bqhw->bkhw", classes_BQK, masks_BQHW)
