"""Mask2Former's matching and losses (arXiv:2112.01527, section 3.3) for all predictions and images at once.

The terms are transformers' own, and random points are drawn in the order of its loss, so that the same seed
gives the same losses; its own loop makes the host wait for the device at every prediction and image.

Legend: B images, N predictions, Q queries, K classes, M true masks of the batch, P points, H W height and
width of a true mask, h w of a predicted one.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.mask2former.modeling_mask2former import (
    dice_loss,
    pair_wise_dice_loss,
    pair_wise_sigmoid_cross_entropy_loss,
    sample_point,
    sigmoid_cross_entropy_loss,
)

from ufo_large.tasks.assignment import assigned
from ufo_large.tasks.class_masks import ClassMasks

if TYPE_CHECKING:
    from transformers import EomtConfig, Mask2FormerConfig


def mask_losses(
    class_logits_BNQK: Tensor,
    mask_logits_BNQhw: Tensor,
    targets: ClassMasks,
    config: "Mask2FormerConfig | EomtConfig",
) -> dict[str, Tensor]:
    """Return `class`, `mask` and `dice`, weighted and summed over predictions; the last class is no object.

    Masks are divided by their number in the batch. Waits once for the device.
    """
    # all at once: each single index would have a gradient as large as all predictions
    *others, last = zip(class_logits_BNQK.unbind(1), mask_logits_BNQhw.unbind(1), strict=True)
    predictions = [last, *others]  # as transformers does
    points = [_Points.drawn(class_logits_BNQK, targets, config) for _ in predictions]
    costs = [
        _cost(logits_BQK, logits_BQhw, targets, drawn.of_image_BP2, config)
        for (logits_BQK, logits_BQhw), drawn in zip(predictions, points, strict=True)
    ]
    matched = assigned(torch.stack(costs, dim=1), targets.image_M)
    losses = {"class": 0, "mask": 0, "dice": 0}
    for (logits_BQK, logits_BQhw), drawn, target_M, query_M in zip(
        predictions, points, *matched, strict=True
    ):
        place_M = targets.image_M[target_M], query_M
        found_M1hw = logits_BQhw[place_M][:, None]
        true_M1HW = targets.masks_MHW[target_M][:, None]
        mask, dice = _at_points(found_M1hw, true_M1HW, drawn, max(1, len(targets.labels_M)), config)
        labels_M = targets.labels_M[target_M]
        losses["class"] += config.class_weight * _class_loss(
            logits_BQK, place_M, labels_M, config.no_object_weight
        )
        losses["mask"] += config.mask_weight * mask
        losses["dice"] += config.dice_weight * dice
    return losses


class _Points(NamedTuple):
    """Random points of one prediction, in 0..1: for matching, to choose the unsure from, and the rest."""

    of_image_BP2: Tensor
    candidates_MP2: Tensor
    rest_MP2: Tensor

    @classmethod
    def drawn(
        cls, like_BNQK: Tensor, targets: ClassMasks, config: "Mask2FormerConfig | EomtConfig"
    ) -> "_Points":
        count, num_queries = config.train_num_points, like_BNQK.shape[2]
        pairs = sum(min(masks, num_queries) for masks in targets.per_image)
        unsure = int(config.importance_sample_ratio * count)

        def rand(*shape: int) -> Tensor:
            return torch.rand(*shape, 2, device=like_BNQK.device)

        of_images = torch.cat([rand(1, count) for _ in targets.per_image])
        return cls(of_images, rand(pairs, int(count * config.oversample_ratio)), rand(pairs, count - unsure))


@torch.no_grad()
def _cost(
    class_logits_BQK: Tensor,
    mask_logits_BQhw: Tensor,
    targets: ClassMasks,
    points_BP2: Tensor,
    config: "Mask2FormerConfig | EomtConfig",
) -> Tensor:
    """Return what each true mask costs with each query of its own image, [M, Q]."""
    found_BQP = sample_point(mask_logits_BQhw, points_BP2, align_corners=False)
    points_MP2 = points_BP2[targets.image_M]
    true_MP = sample_point(targets.masks_MHW[:, None], points_MP2, align_corners=False)[:, 0]
    score_MQ = class_logits_BQK.softmax(-1)[targets.image_M, :, targets.labels_M]
    of_images = [
        config.mask_weight * pair_wise_sigmoid_cross_entropy_loss(found_QP, true_mP)
        + config.dice_weight * pair_wise_dice_loss(found_QP, true_mP)
        for found_QP, true_mP in zip(found_BQP, true_MP.split(targets.per_image), strict=True)
    ]
    return torch.cat(of_images, dim=1).T - config.class_weight * score_MQ


def _at_points(
    found_M1hw: Tensor,
    true_M1HW: Tensor,
    points: _Points,
    num_masks: int,
    config: "Mask2FormerConfig | EomtConfig",
) -> tuple[Tensor, Tensor]:
    """Return cross-entropy and Dice loss at points where the prediction is unsure, and at some others."""
    with torch.no_grad():
        logits_MP = sample_point(found_M1hw, points.candidates_MP2, align_corners=False)[:, 0]
        unsure = int(config.importance_sample_ratio * config.train_num_points)
        index_MP = (-logits_MP.abs()).topk(unsure, dim=1).indices
        unsure_MP2 = points.candidates_MP2.gather(1, index_MP[..., None].expand(-1, -1, 2))
        points_MP2 = torch.cat([unsure_MP2, points.rest_MP2], dim=1)
        true_MP = sample_point(true_M1HW, points_MP2, align_corners=False)[:, 0]
    found_MP = sample_point(found_M1hw, points_MP2, align_corners=False)[:, 0]
    return sigmoid_cross_entropy_loss(found_MP, true_MP, num_masks), dice_loss(found_MP, true_MP, num_masks)


def _class_loss(
    logits_BQK: Tensor, place_M: tuple[Tensor, Tensor], labels_M: Tensor, no_object_weight: float
) -> Tensor:
    no_object = logits_BQK.shape[-1] - 1
    weight_K = logits_BQK.new_ones(no_object + 1)
    weight_K[no_object] = no_object_weight
    labels_BQ = torch.full(logits_BQK.shape[:2], no_object, device=logits_BQK.device)
    labels_BQ[place_M] = labels_M
    return F.cross_entropy(logits_BQK.transpose(1, 2), labels_BQ, weight_K)
