"""Boxes in a user's files, in tiles and beside the truth: what detection needs around its metric.

Legend: N found boxes, G true boxes of one image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import batched_nms, box_convert

from ufo_large.metrics import FoundBoxes, TrueBoxes
from ufo_large.structures import BoxPrediction, SampleInfo

MATCH_IOU = 0.5
DEFAULT_SCORE = 0.3
MIN_BOX_PX = 1.0
EDGE_PX = 2.0
TILE_IOU = 0.5
MAX_BOXES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """One annotated object: pixels of the user's image, model label, COCO's crowd flag and area."""

    xyxy: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    area: float | None = None

    @property
    def known_area(self) -> float:
        """COCO's stated area where there is one, else width x height."""
        x0, y0, x1, y1 = self.xyxy
        return (x1 - x0) * (y1 - y0) if self.area is None else self.area


def keep_visible(
    boxes_xyxy: Tensor, labels: Tensor, size: tuple[int, int]
) -> tuple[tv_tensors.BoundingBoxes, Tensor]:
    """Drop boxes whose centre is outside `size` (height, width), clip the others, drop slivers."""
    height, width = size
    centre_x, centre_y = boxes_xyxy[:, 0::2].mean(1), boxes_xyxy[:, 1::2].mean(1)
    inside = (centre_x >= 0) & (centre_x < width) & (centre_y >= 0) & (centre_y < height)
    limit = boxes_xyxy.new_tensor([width, height, width, height])
    boxes_xyxy = boxes_xyxy.clamp(min=0).minimum(limit)
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    kept = inside & (sides.amin(1) >= MIN_BOX_PX)
    return tv_tensors.BoundingBoxes(boxes_xyxy[kept], format="XYXY", canvas_size=size), labels[kept]


def merged_boxes(source: SampleInfo, found: Sequence[BoxPrediction]) -> BoxPrediction:
    """Join what was found in an image's tiles.

    A box cut by an inner edge of its tile is dropped when it is smaller than the overlap, because a neighbour
    sees it whole; what two tiles both found is settled by class-wise non-maximum suppression, and the best
    `MAX_BOXES` of each class stay, as many as COCO counts.
    """
    moved = [_in_source(prediction) for prediction in found]
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*moved, strict=True))
    kept = batched_nms(boxes.float(), scores.float(), labels, TILE_IOU)
    kept = kept[first_of_each(labels[kept], MAX_BOXES)]
    return BoxPrediction(
        sample=source, boxes_xyxy_N4=boxes[kept], scores_N=scores[kept], labels_N=labels[kept]
    )


def first_of_each(labels_N: Tensor, most: int) -> Tensor:
    """Return the places of the first `most` of each label, in order."""
    places = [(labels_N == label).nonzero().flatten()[:most] for label in labels_N.unique()]
    return torch.cat(places).sort().values if places else labels_N.nonzero().flatten()


def _in_source(prediction: BoxPrediction) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes in the source image, scores and labels, without those an inner edge cut."""
    tile, boxes = prediction.sample, prediction.boxes_xyxy_N4
    cut = torch.zeros(len(boxes), dtype=torch.bool)
    for low, high, start, size, length in (
        (0, 2, tile.left, tile.width, tile.source.width),
        (1, 3, tile.top, tile.height, tile.source.height),
    ):
        small = boxes[:, high] - boxes[:, low] < tile.overlap - EDGE_PX
        if start > 0:
            cut |= small & (boxes[:, low] < EDGE_PX)
        if start + size < length:
            cut |= small & (boxes[:, high] > size - EDGE_PX)
    offset = boxes.new_tensor([tile.left, tile.top, tile.left, tile.top])
    return (boxes + offset)[~cut], prediction.scores_N[~cut], prediction.labels_N[~cut]


@dataclass(frozen=True, slots=True)
class Hits:
    """`found_N`: whether each found box hit a true one; `total`: how many true boxes there are to find."""

    scores_N: np.ndarray
    found_N: np.ndarray
    total: int

    def from_score(self, score: float) -> tuple[int, int]:
        """Return (hits, wrong boxes) among the boxes from `score` on."""
        kept = self.scores_N >= score
        hits = int(self.found_N[kept].sum())
        return hits, int(kept.sum()) - hits


def match(found: FoundBoxes, truth: TrueBoxes) -> Hits:
    """Match greedily, best score first, as the metric does: same class, IoU from 0.5, each true box once.

    A found box that meets nothing but a crowd, half of it at least, is neither right nor wrong: left out.
    """
    labels_G = np.asarray(truth.labels_G)
    crowds_G = np.zeros(len(labels_G), bool) if truth.crowds_G is None else np.asarray(truth.crowds_G, bool)
    overlap_NG = _overlaps(found.boxes_xywh_N4, truth.boxes_xywh_G4, crowds_G)
    meets_NG = (overlap_NG >= MATCH_IOU) & (found.labels_N[:, None] == labels_G[None])
    free_G, hit_N = ~crowds_G, np.zeros(len(meets_NG), bool)
    for i in np.argsort(-found.scores_N, kind="stable"):
        open_G = meets_NG[i] & free_G
        if open_G.any():
            hit_N[i] = True
            free_G[np.where(open_G, overlap_NG[i], 0).argmax()] = False
    counted_N = hit_N | ~(meets_NG & crowds_G).any(axis=1)
    return Hits(found.scores_N[counted_N], hit_N[counted_N], int((~crowds_G).sum()))


def _overlaps(boxes_xywh_N4: np.ndarray, boxes_xywh_G4: np.ndarray, crowds_G: np.ndarray) -> np.ndarray:
    """Return the IoU, [N, G]; of a crowd the share of the found box that lies in it."""
    if not (len(boxes_xywh_N4) and len(boxes_xywh_G4)):
        return np.zeros((len(boxes_xywh_N4), len(boxes_xywh_G4)))
    found, true = (np.asarray(boxes, np.float64) for boxes in (boxes_xywh_N4, boxes_xywh_G4))
    return coco_mask.iou(found, true, crowds_G.astype(np.uint8))


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


def without_crowds(truth: TrueBoxes) -> TrueBoxes:
    """Return what must be found: crowds need not."""
    if truth.crowds_G is None:
        return truth
    kept = ~truth.crowds_G
    return TrueBoxes(boxes_xywh_G4=truth.boxes_xywh_G4[kept], labels_G=truth.labels_G[kept])


def corners(truth: TrueBoxes) -> np.ndarray:
    """Return the true boxes as xyxy, float64 [G, 4]."""
    boxes_xywh_G4 = torch.as_tensor(np.asarray(truth.boxes_xywh_G4, dtype=float)).reshape(-1, 4)
    return box_convert(boxes_xywh_G4, "xywh", "xyxy").numpy()
