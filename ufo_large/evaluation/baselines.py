"""What needs no training: the figures that a model has to beat.

Legend: H W height and width of the grid, K classes.
"""

from collections import Counter

import cv2
import numpy as np

from ufo_large.media.decode import decode_labels
from ufo_large.data.shards import ShardSet, SplitReader
from ufo_large.evaluation.ground_truth import GroundTruth
from ufo_large.kinds.protocols import Protocol
from ufo_large.evaluation.score import HEADLINE
from ufo_large.metrics import MeanIoU
from ufo_large.structures import IGNORE_INDEX

MAX_MASKS = 1000
MAX_GRID = 512

Figures = dict[str, dict[str, float]]


def trivial_baselines(shards: ShardSet, truths: dict[str, GroundTruth], protocol: Protocol) -> Figures:
    """Return {metric: {name: value}} on the test truth, knowing of each task only its training labels.

    Classification: always the class most frequent in training. Detection: no box at all. Segmentation:
    everywhere the most frequent class, and at every position the class most frequent there. Means over tasks
    of one kind. Tasks without training labels are left out.
    """
    figures: dict[str, dict[str, list[float]]] = {}
    for name, truth in truths.items():
        if not (shards.has_split(name, "train") and shards.split(name, "train").labeled):
            continue
        found = _BASELINES[truth.info.kind](shards.split(name, "train"), truth, protocol)
        of_metric = figures.setdefault(HEADLINE[truth.info.kind], {})
        for baseline, value in found.items():
            of_metric.setdefault(baseline, []).append(value)
    return {m: {b: float(np.mean(v)) for b, v in found.items()} for m, found in figures.items()}


def _majority_class(train: SplitReader, truth: GroundTruth, protocol: Protocol) -> dict[str, float]:
    majority = int(np.argmax(train.class_histogram))
    return {"majority_class": float(np.mean([truth.read(i) == majority for i in range(len(truth))]))}


def _no_boxes(train: SplitReader, truth: GroundTruth, protocol: Protocol) -> dict[str, float]:
    return {"no_boxes": 0.0}


def _frequent_pixels(train: SplitReader, truth: GroundTruth, protocol: Protocol) -> dict[str, float]:
    overall = int(np.argmax(train.class_histogram))
    by_position_HW = most_frequent_by_position(train, overall)
    metrics = {
        name: MeanIoU(truth.info.class_names, empty=protocol.empty_classes)
        for name in ("most_frequent_class", "most_frequent_class_per_position")
    }
    for i in range(len(truth)):
        truth_HW = truth.read(i)
        size = truth_HW.shape[::-1]
        guesses = (
            np.full_like(truth_HW, overall),
            cv2.resize(by_position_HW, size, interpolation=cv2.INTER_NEAREST),
        )
        for metric, guess_HW in zip(metrics.values(), guesses, strict=True):
            metric.update(guess_HW, truth_HW)
    return {name: metric.compute()["miou"] for name, metric in metrics.items()}


def most_frequent_by_position(train: SplitReader, overall: int) -> np.ndarray:
    """Return the most frequent class at every position, uint8 [H, W]; `overall` where none was ever seen.

    Counted on up to 1,000 evenly spread masks, scaled to the commonest size or, if that is longer, to 512.
    """
    sizes = Counter(zip(train.heights.tolist(), train.widths.tolist(), strict=True))
    (height, width), _ = sizes.most_common(1)[0]
    scale = min(1.0, MAX_GRID / max(height, width))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    counts_KHW = np.zeros((train.info.num_classes, height, width), np.int32)
    for row in np.unique(
        np.linspace(0, len(train) - 1, min(len(train), MAX_MASKS)).round().astype(int)
    ).tolist():
        mask_HW = decode_labels(train.read(row).mask)
        mask_HW = cv2.resize(mask_HW, (width, height), interpolation=cv2.INTER_NEAREST)
        for label in np.unique(mask_HW[mask_HW != IGNORE_INDEX]).tolist():
            counts_KHW[label] += mask_HW == label
    frequent_HW = counts_KHW.argmax(axis=0).astype(np.uint8)
    frequent_HW[counts_KHW.sum(axis=0) == 0] = overall
    return frequent_HW


_BASELINES = {
    "classification": _majority_class,
    "detection": _no_boxes,
    "segmentation": _frequent_pixels,
}
