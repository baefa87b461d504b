"""Match queries with boxes as DETR does (arXiv:2005.12872), for all layers, groups and images in one go.

Legend: B images, N boxes of the batch, R matchings of an image (layers, proposals, groups), Q queries, K
classes, M pairs of a matching.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_convert

from ufo_large.losses import paired_overlaps
from ufo_large.structures import BoxTargets
from ufo_large.tasks.assignment import assigned

_ALPHA, _GAMMA = 0.25, 2.0  # of the focal cost, as published with Deformable DETR (arXiv:2010.04159)


class Costs(NamedTuple):
    """Weights of what a pair costs: focal cost of its class, L1 and generalised IoU of its boxes."""

    classes: float
    distance: float
    giou: float


class Pairs(NamedTuple):
    """What was matched: `place_RM` indexes [B, R, Q] tensors, `label_RM` their classes.

    `found_RM4` are the predicted boxes, with their gradient, `true_RM4` the targets; cxcywh.
    """

    place_RM: tuple[Tensor, Tensor, Tensor]
    label_RM: Tensor
    found_RM4: Tensor
    true_RM4: Tensor

    @property
    def class_place_RM(self) -> tuple[Tensor, ...]:
        """The index into [B, R, Q, K] tensors."""
        return (*self.place_RM, self.label_RM)

    def overlaps(self) -> tuple[Tensor, Tensor]:
        """Return IoU and generalised IoU of every pair, [R, M]."""
        return paired_overlaps(_corners(self.found_RM4), _corners(self.true_RM4))

    def box_losses(self, num_boxes: int) -> tuple[Tensor, Tensor]:
        """Return the L1 and the GIoU loss, each summed over matchings and divided by `num_boxes`."""
        distance = (self.found_RM4 - self.true_RM4).abs().sum() / num_boxes
        return distance, (1 - self.overlaps()[1]).sum() / num_boxes


def match(logits_BRQK: Tensor, boxes_cxcywh_BRQ4: Tensor, targets: BoxTargets, costs: Costs) -> Pairs:
    """Return the pairs of every matching; target boxes are cxcywh, as shares like the predicted ones."""
    cost_NRQ = _cost(logits_BRQK.detach(), boxes_cxcywh_BRQ4.detach(), targets, costs)
    box_RM, query_RM = assigned(cost_NRQ, targets.image_index_N)
    matching_RM = torch.arange(len(box_RM), device=box_RM.device)[:, None].expand_as(box_RM)
    place_RM = (targets.image_index_N[box_RM], matching_RM, query_RM)
    return Pairs(
        place_RM, targets.labels_N[box_RM], boxes_cxcywh_BRQ4[place_RM], targets.boxes_xyxy_N4[box_RM]
    )


def _cost(logits_BRQK: Tensor, boxes_BRQ4: Tensor, targets: BoxTargets, costs: Costs) -> Tensor:
    """Return what each box costs with each query of its own image, [N, R, Q]."""
    image_N, true_N114 = targets.image_index_N, targets.boxes_xyxy_N4[:, None, None]
    score_NRQ = logits_BRQK[image_N, :, :, targets.labels_N].sigmoid()
    positive_NRQ = _ALPHA * (1 - score_NRQ) ** _GAMMA * -(score_NRQ + 1e-8).log()
    negative_NRQ = (1 - _ALPHA) * score_NRQ**_GAMMA * -(1 - score_NRQ + 1e-8).log()
    found_NRQ4 = boxes_BRQ4[image_N]
    distance_NRQ = (found_NRQ4 - true_N114).abs().sum(-1)
    giou_NRQ = paired_overlaps(_corners(found_NRQ4), _corners(true_N114))[1]
    class_NRQ = positive_NRQ - negative_NRQ
    return costs.distance * distance_NRQ + costs.classes * class_NRQ - costs.giou * giou_NRQ


def _corners(boxes_cxcywh: Tensor) -> Tensor:
    return box_convert(boxes_cxcywh, "cxcywh", "xyxy")
