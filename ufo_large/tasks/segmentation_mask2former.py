"""Label pixels by predicting one mask a query and classifying the query (Mask2Former, arXiv:2112.01527).

Decoder, matcher and losses are transformers' own; our pyramid stands in for their pixel decoder. For a
pretrained trunk: from scratch the dense head learns much faster.

Legend: B images, Q queries, K classes, D head width, N predictions (queries alone, then every layer),
H W height and width of a map.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ufo_large.structures import (
    IGNORE_INDEX,
    Features,
    MaskPrediction,
    TaskBatch,
    TaskInfo,
)
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.mask_resize import check_label_range, mask_predictions
from ufo_large.tasks.pyramid_fusion import PyramidFusion

_LOSS_NAMES = {"loss_cross_entropy": "class", "loss_mask": "mask", "loss_dice": "dice"}


class Mask2FormerSegmenter(TaskHead):
    """Cross-entropy on queries, cross-entropy and Dice on masks, summed over all decoder layers.

    Masks are compared at random points, more of them where the prediction is unsure, so two calls on the
    same outputs differ a little. A pixel to ignore belongs to no mask, as in the original: it counts as
    "not this class" for every query and no class can win it by training. Losses are divided by the
    number of masks of this rank's micro-batch, so the mean over ranks is the mean over micro-batches.
    """

    kind = "segmentation"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(TaskHead.Config):
        """`strides`: masks live at the first, the last three are attended to in turn, a layer each.

        `num_points`: points at which a predicted mask meets the true one.
        """

        strides: tuple[int, ...] = (4, 8, 16, 32)
        width: int = 256
        layers: int = 9
        heads: int = 8
        feedforward: int = 2048
        num_queries: int = 100
        num_points: int = 12544
        class_weight: float = 2.0
        mask_weight: float = 5.0
        dice_weight: float = 5.0
        no_object_weight: float = 0.1

        def __post_init__(self):
            if len(self.strides) not in (3, 4) or list(self.strides) != sorted(set(self.strides)):
                raise ValueError(f"strides={self.strides}: name three or four pyramid strides, finest first")
            if self.width % (2 * self.heads):
                raise ValueError(f"width={self.width}: choose a multiple of 2 * heads = {2 * self.heads}")
            if self.layers < 3:
                raise ValueError(
                    f"layers={self.layers}: choose 3 or more, so that every level is attended to"
                )
            for name in ("class_weight", "mask_weight", "dice_weight", "no_object_weight"):
                if getattr(self, name) < 0:
                    raise ValueError(f"{name}={getattr(self, name)}: choose 0 or more")
            for name in ("heads", "num_queries", "num_points"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name}={getattr(self, name)}: choose 1 or more")

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "Mask2FormerSegmenter":
            return Mask2FormerSegmenter(self, info, pyramid_width)

    def __init__(self, config: Config, info: TaskInfo, pyramid_width: int):
        super().__init__(info)
        check_label_range(info)
        # transformers takes seconds to import: only a run that uses this head pays.
        from ufo_large.tasks.mask2former_decoder import Mask2FormerDecoder

        self.strides = config.strides
        self.fuse = PyramidFusion(self.strides, pyramid_width, config.width, num_convs=1)
        self.to_masks = nn.Conv2d(config.width, config.width, 1)
        self.decoder = Mask2FormerDecoder(config, info.num_classes, pyramid_width)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return `class_logits` [B, N, Q, K + 1] (last: no object) and `mask_logits` [B, N, Q, H, W]."""
        levels = [features.pyramid[stride] for stride in self.strides]
        class_logits, mask_logits = self.decoder(levels[:-4:-1], self.to_masks(self.fuse(levels)))
        return {
            "class_logits": class_logits,
            "mask_logits": mask_logits,
        }

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
        by_layer = self.decoder.criterion(masks[0].device)(
            **predictions[-1], mask_labels=masks, class_labels=labels, auxiliary_predictions=predictions[:-1]
        )
        losses = {
            short: self.decoder.weights[long]
            * sum(loss for name, loss in by_layer.items() if name.startswith(long))
            for long, short in _LOSS_NAMES.items()
        }
        return self.watch.losses(losses)

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: TaskBatch) -> list[MaskPrediction]:
        """Score of a class at a pixel: sum over queries of P(class) P(pixel in mask)."""
        classes_BQK = outputs["class_logits"][:, -1].float().softmax(dim=-1)[..., :-1]
        masks_BQHW = outputs["mask_logits"][:, -1].float().sigmoid()
        scores_BKHW = torch.einsum("bqk,bqhw->bkhw", classes_BQK, masks_BQHW)
        return mask_predictions(scores_BKHW, self.strides[0], batch)

    def _binary_masks(self, mask_logits: Tensor, masks_BHW: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return one float mask for every class present in an image, [n, H, W], and those classes, [n].

        True masks are padded to what the predicted ones cover, for both are read at relative positions.
        """
        covered = [cells * self.strides[0] for cells in mask_logits.shape[-2:]]
        bottom, right = (full - own for full, own in zip(covered, masks_BHW.shape[-2:], strict=True))
        masks_BHW = F.pad(masks_BHW, (0, right, 0, bottom), value=IGNORE_INDEX)
        labels = [mask_HW.unique() for mask_HW in masks_BHW]
        labels = [labels_n[labels_n != IGNORE_INDEX] for labels_n in labels]
        masks = [
            (mask_HW == labels_n[:, None, None]).float()
            for mask_HW, labels_n in zip(masks_BHW, labels, strict=True)
        ]
        return masks, labels
