"""What heads share that predict one mask per query and classify the query (MaskFormer, arXiv:2107.06278).

Legend: B images, Q queries, K classes, N predictions, H W height and width of a map.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ufo_large.structures import IGNORE_INDEX, MaskPrediction, TaskBatch
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.mask_resize import input_labels, mask_predictions

_LOSS_NAMES = {"loss_cross_entropy": "class", "loss_mask": "mask", "loss_dice": "dice"}


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
            for name in ("num_queries", "num_points"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name}={getattr(self, name)}: choose 1 or more")

    @abstractmethod
    def criterion(self, device: torch.device) -> nn.Module:
        """Return transformers' loss, whose `weight_dict` weighs its parts.

        Made anew each time, so that its class weights are neither saved nor cast to bfloat16.
        """

    def losses(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `class`, `mask` and `dice`."""
        outputs = self.watch.cleaned({name: out.float() for name, out in outputs.items()})
        predictions = [
            {"masks_queries_logits": masks, "class_queries_logits": classes}
            for masks, classes in zip(
                outputs["mask_logits"].unbind(1), outputs["class_logits"].unbind(1), strict=True
            )
        ]
        masks, labels = self._binary_masks(outputs["mask_logits"], batch.targets.masks_BHW.long())
        criterion = self.criterion(masks[0].device)
        by_layer = criterion(
            **predictions[-1], mask_labels=masks, class_labels=labels, auxiliary_predictions=predictions[:-1]
        )
        losses = {
            short: criterion.weight_dict[long]
            * sum(loss for name, loss in by_layer.items() if name.startswith(long))
            for long, short in _LOSS_NAMES.items()
        }
        return self.watch.losses(losses)

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: TaskBatch) -> list[MaskPrediction]:
        return mask_predictions(_scores(outputs), self.mask_stride, batch)

    def graph_outputs(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `labels`, int64 [B, H, W]."""
        return input_labels(_scores(outputs), self.mask_stride, batch)

    def _binary_masks(self, mask_logits: Tensor, masks_BHW: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return one float mask for every class present in an image, [n, H, W], and those classes, [n].

        True masks are padded to what the predicted ones cover, for both are read at relative positions.
        """
        covered = [int(cells * self.mask_stride) for cells in mask_logits.shape[-2:]]
        bottom, right = (full - own for full, own in zip(covered, masks_BHW.shape[-2:], strict=True))
        masks_BHW = F.pad(masks_BHW, (0, right, 0, bottom), value=IGNORE_INDEX)
        labels = [mask_HW.unique() for mask_HW in masks_BHW]
        labels = [labels_n[labels_n != IGNORE_INDEX] for labels_n in labels]
        masks = [
            (mask_HW == labels_n[:, None, None]).float()
            for mask_HW, labels_n in zip(masks_BHW, labels, strict=True)
        ]
        return masks, labels


def _scores(outputs: dict[str, Tensor]) -> Tensor:
    """Return the score of a class at a pixel, [B, K, H, W]: sum over queries of P(class) P(pixel in mask)."""
    classes_BQK = outputs["class_logits"][:, -1].float().softmax(dim=-1)[..., :-1]
    masks_BQHW = outputs["mask_logits"][:, -1].float().sigmoid()
    return torch.einsum("bqk,bqhw->bkhw", classes_BQK, masks_BQHW)
