"""One list of boxes from those that several views of an image found.

Legend: N boxes of all views, C clusters.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import batched_nms

from ufo_large.kinds.boxes import first_of_each
from ufo_large.structures import BoxPrediction

FUSION_IOU = 0.55
"""The paper's choice for weighted boxes."""
LEAST_WEIGHT = 1e-12
"""Of a score of zero, so that boxes of none but such have a mean."""


def fused_boxes(views: Sequence[BoxPrediction], fusion: str, most: int) -> BoxPrediction:
    """Join the boxes by `wbf` (`weighted_boxes`) or `nms`; the best `most` of each class stay."""
    boxes_N4 = torch.cat([view.boxes_xyxy_N4 for view in views]).double()
    scores_N = torch.cat([view.scores_N for view in views]).double()
    labels_N = torch.cat([view.labels_N for view in views])
    if fusion == "nms":
        kept = batched_nms(boxes_N4, scores_N, labels_N, FUSION_IOU)
        boxes_N4, scores_N, labels_N = boxes_N4[kept], scores_N[kept], labels_N[kept]
    else:
        arrays = weighted_boxes(boxes_N4.numpy(), scores_N.numpy(), labels_N.numpy(), len(views))
        boxes_N4, scores_N, labels_N = map(torch.from_numpy, arrays)
    best = first_of_each(labels_N, most)
    return BoxPrediction(
        sample=views[0].sample,
        boxes_xyxy_N4=boxes_N4[best].float(),
        scores_N=scores_N[best].float(),
        labels_N=labels_N[best],
    )


def weighted_boxes(
    boxes_N4: np.ndarray, scores_N: np.ndarray, labels_N: np.ndarray, num_views: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fuse boxes by weighted box fusion (Solovyev et al. 2021, arXiv:1910.13302, section 3).

    Best first, each box (xyxy) joins the cluster of its class whose fused box it overlaps most, from an IoU
    above `FUSION_IOU` on, or begins one. A cluster's box is the mean of its boxes weighted by their scores;
    its score is their mean, times the share of the views that it has a box for, at most 1. Returns boxes,
    scores and labels of the clusters, best first. Boxes without area are dropped.
    """
    solid = (boxes_N4[:, 2:] > boxes_N4[:, :2]).all(1)
    order = np.flatnonzero(solid)[np.argsort(-scores_N[solid], kind="stable")]
    boxes_N4, scores_N, labels_N = boxes_N4[order], scores_N[order], labels_N[order]
    sums_C4, weights_C = np.zeros(boxes_N4.shape), np.zeros(len(order))
    fused_C4, labels_C = np.zeros(boxes_N4.shape), np.zeros_like(labels_N)
    cluster_N, count = np.zeros(len(order), np.int64), 0
    for i, (box, label) in enumerate(zip(boxes_N4, labels_N, strict=True)):
        overlap = np.where(labels_C[:count] == label, _iou(fused_C4[:count], box), 0.0)
        cluster = int(overlap.argmax()) if count else 0
        if not count or overlap[cluster] <= FUSION_IOU:
            cluster, count = count, count + 1
            labels_C[cluster] = label
        weight = max(scores_N[i], LEAST_WEIGHT)
        sums_C4[cluster] += weight * box
        weights_C[cluster] += weight
        fused_C4[cluster] = sums_C4[cluster] / weights_C[cluster]
        cluster_N[i] = cluster
    sizes_C = np.bincount(cluster_N, minlength=count)[:count]
    means_C = np.bincount(cluster_N, scores_N, minlength=count)[:count] / sizes_C
    scores_C = means_C * np.minimum(sizes_C, num_views) / num_views
    best = np.argsort(-scores_C, kind="stable")
    return fused_C4[best], scores_C[best], labels_C[best]


def _iou(boxes_C4: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the overlap of each box with one; all have area."""
    sides = np.minimum(boxes_C4[:, 2:], box[2:]) - np.maximum(boxes_C4[:, :2], box[:2])
    shared = np.maximum(sides, 0).prod(1)
    return shared / ((boxes_C4[:, 2:] - boxes_C4[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - shared)
