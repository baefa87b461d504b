"""How far boxes that belong together overlap, pair by pair.

torchvision's `generalized_box_iou_loss` picks the pairs that meet by a mask, for which the host waits.
"""

import torch
from torch import Tensor


def paired_overlaps(one_xyxy: Tensor, other_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalised IoU (arXiv:1902.09630, algorithm 1) of boxes [..., 4] that broadcast, [...].

    Two boxes of no area in one place give 0 and 0, with a finite gradient.
    """
    (one_start, one_end), (start, end) = (b.split(2, dim=-1) for b in (one_xyxy, other_xyxy))
    inside = _area((torch.minimum(one_end, end) - torch.maximum(one_start, start)).clamp(min=0))
    around = _area((torch.maximum(one_end, end) - torch.minimum(one_start, start)).clamp(min=0))
    union = _area(one_end - one_start) + _area(end - start) - inside
    iou = inside / _positive(union)
    return iou, iou - (around - union) / _positive(around)


def _area(sides: Tensor) -> Tensor:
    return sides[..., 0] * sides[..., 1]  # the backward pass of `prod` waits for the device


def _positive(area: Tensor) -> Tensor:
    return area.clamp(min=torch.finfo(area.dtype).tiny)
