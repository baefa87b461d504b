"""Suppression of doubles as one operation of fixed shapes, which a graph can hold for any number of images.

Legend: B images, N boxes, K classes, M detections of an image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from ufo_large.tasks.box_targets import rows


@torch.library.custom_op("ufo::without_doubles", mutates_args=())
def without_doubles(boxes_BN4: Tensor, scores_BKN: Tensor, threshold: float, most: int) -> Tensor:
    """Return where a box stays for a class, bool [B, K, N]: up to `most` of an image and class.

    A score of 0 is none. A box goes that overlaps a better one of its class by an IoU above `threshold`
    (torchvision's `nms`). An operation of our own, because the number of boxes that stay is no shape here.
    """
    stays_BKN = torch.zeros_like(scores_BKN, dtype=torch.bool)
    for image, label in (scores_BKN > 0).any(-1).nonzero().tolist():
        index = scores_BKN[image, label].nonzero()[:, 0]
        best = nms(boxes_BN4[image, index], scores_BKN[image, label, index], threshold)[:most]
        stays_BKN[image, label, index[best]] = True
    return stays_BKN


@without_doubles.register_fake
def _(boxes_BN4: Tensor, scores_BKN: Tensor, threshold: float, most: int) -> Tensor:
    return torch.empty_like(scores_BKN, dtype=torch.bool)


def best_without_doubles(
    boxes_BN4: Tensor, scores_BN: Tensor, labels_BN: Tensor, num_classes: int, threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes [B, M, 4], scores and labels [B, M] of the `most` best of every image, best first.

    Where fewer stay the last scores are 0.
    """
    of_class_BKN = F.one_hot(labels_BN, num_classes).transpose(1, 2).to(scores_BN.dtype)
    stays_BKN = without_doubles(boxes_BN4, of_class_BKN * scores_BN[:, None], threshold, most)
    scores_BN = torch.where(stays_BKN.any(1), scores_BN, 0.0)
    scores_BM, index_BM = scores_BN.topk(min(most, scores_BN.shape[1]), dim=1)
    return rows(boxes_BN4, index_BM), scores_BM, labels_BN.gather(1, index_BM)
