"""Losses over the pixels of class maps, safe where every pixel is ignored.

Legend: B images, K classes, H W height and width in pixels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_cross_entropy(
    logits_BKHW: Tensor, masks_BHW: Tensor, ignore_index: int, class_weights_K: Tensor | None = None
) -> Tensor:
    """Return the (weighted) mean cross-entropy over the pixels that are not ignored; 0 if there are none."""
    summed = F.cross_entropy(
        logits_BKHW, masks_BHW, weight=class_weights_K, ignore_index=ignore_index, reduction="sum"
    )
    valid_BHW = masks_BHW != ignore_index
    if class_weights_K is None:
        return summed / valid_BHW.sum().clamp(min=1)
    weights_BHW = torch.where(valid_BHW, class_weights_K[torch.where(valid_BHW, masks_BHW, 0)], 0)
    return summed / weights_BHW.sum().clamp(min=torch.finfo(summed.dtype).tiny)


def multiclass_dice(logits_BKHW: Tensor, masks_BHW: Tensor, ignore_index: int) -> Tensor:
    """Return 1 - Dice, averaged over the classes present in the batch (V-Net, arXiv:1606.04797, eq. 3).

    Dice of class k is 2 sum(p t) / (sum(p^2) + sum(t)) over all valid pixels of the batch, so a small
    class counts as much as a large one. A batch without a valid pixel gives 0.
    """
    num_classes = logits_BKHW.shape[1]
    valid_BHW = masks_BHW != ignore_index
    target_BKHW = F.one_hot(torch.where(valid_BHW, masks_BHW, 0), num_classes).movedim(-1, 1)
    target_BKHW = target_BKHW * valid_BHW.unsqueeze(1)
    probability_BKHW = logits_BKHW.softmax(dim=1) * valid_BHW.unsqueeze(1)
    overlap_K = (probability_BKHW * target_BKHW).sum(dim=(0, 2, 3))
    pixels_K = target_BKHW.sum(dim=(0, 2, 3))
    total_K = probability_BKHW.square().sum(dim=(0, 2, 3)) + pixels_K
    present_K = (pixels_K > 0).to(overlap_K.dtype)
    loss_K = 1 - 2 * overlap_K / total_K.clamp(min=1e-6)
    return (loss_K * present_K).sum() / present_K.sum().clamp(min=1)


def inverse_frequency_weights(pixel_counts: Sequence[int], power: float = 0.5) -> tuple[float, ...]:
    """Return one weight a class, (mean count / count) ** power, with mean 1 over the classes that occur.

    Classes that never occur get weight 1: they have no pixel to weigh.
    """
    counts = torch.as_tensor(pixel_counts, dtype=torch.float64)
    if (counts < 0).any() or not (counts > 0).any():
        raise ValueError(
            f"pixel counts {list(pixel_counts)}: need one count >= 0 a class, at least one above 0"
        )
    present = counts > 0
    weights = torch.ones_like(counts)
    raw = (counts[present].mean() / counts[present]) ** power
    weights[present] = raw / raw.mean()
    return tuple(weights.tolist())
