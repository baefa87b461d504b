"""Which found boxes hit a true one: for the words under a picture and the choice of boxes to draw.

Legend: N found boxes, G true boxes of one image.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ufo_large.metrics import TrueBoxes
from ufo_large.structures import BoxPrediction

MATCH_IOU = 0.5
DEFAULT_SCORE = 0.3


@dataclass(frozen=True, slots=True)
class Hits:
    """`found_N`: whether each found box hit a true one; `total`: how many true boxes there are."""

    scores_N: np.ndarray
    found_N: np.ndarray
    total: int

    def from_score(self, score: float) -> tuple[int, int]:
        """Return (hits, wrong boxes) among the boxes from `score` on."""
        kept = self.scores_N >= score
        hits = int(self.found_N[kept].sum())
        return hits, int(kept.sum()) - hits


def match(found: BoxPrediction, truth: TrueBoxes) -> Hits:
    """Match greedily, best score first, as the metric does: same class, IoU from 0.5, each true box once."""
    boxes, labels = found.boxes_xyxy_N4.numpy(), found.labels_N.numpy()
    true_boxes, true_labels = corners(truth), np.asarray(truth.labels_G)
    iou_NG = iou(boxes, true_boxes) * (labels[:, None] == true_labels[None])
    hit_N = np.zeros(len(boxes), bool)
    for i in np.argsort(-found.scores_N.numpy(), kind="stable"):
        if iou_NG.shape[1] and iou_NG[i].max() >= MATCH_IOU:
            hit_N[i] = True
            iou_NG[:, iou_NG[i].argmax()] = 0
    return Hits(found.scores_N.numpy(), hit_N, len(true_labels))


def best_score(hits: Iterable[Hits]) -> float:
    """Return the score from which on the boxes of all images have the best F1; 0.3 where none hits."""
    hits = list(hits)
    if not any(h.found_N.any() for h in hits):
        return DEFAULT_SCORE
    scores = np.concatenate([h.scores_N for h in hits])
    found = np.concatenate([h.found_N for h in hits])
    order = np.argsort(-scores, kind="stable")
    true_hits = np.cumsum(found[order])
    f1 = 2 * true_hits / (np.arange(1, len(order) + 1) + sum(h.total for h in hits))
    return float(scores[order[f1.argmax()]])


def corners(truth: TrueBoxes) -> np.ndarray:
    """Return the true boxes as xyxy [G, 4]."""
    boxes = np.asarray(truth.boxes_xywh_G4, dtype=float).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def iou(a_N4: np.ndarray, b_G4: np.ndarray) -> np.ndarray:
    """Return the overlap of xyxy boxes, [N, G]."""
    low = np.maximum(a_N4[:, None, :2], b_G4[None, :, :2])
    high = np.minimum(a_N4[:, None, 2:], b_G4[None, :, 2:])
    both_NG = np.maximum(high - low, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a_N4, b_G4)]
    return both_NG / np.maximum(areas[0][:, None] + areas[1][None] - both_NG, 1e-9)
