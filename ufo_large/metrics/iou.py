"""Segmentation: intersection over union of every class, from one confusion matrix over the whole set.

Legend: H W height and width, K classes.
"""

from collections.abc import Sequence
from typing import Literal, Self

import cv2
import numpy as np

from ufo_large.metrics.base import Metric
from ufo_large.structures import IGNORE_INDEX

_EXACT_IN_FLOAT32 = 1 << 24


class MeanIoU(Metric):
    """Mean over classes of TP / (TP + FP + FN), pixels counted over all images.

    Pixels whose truth is 255 are ignored, and so are pixels whose prediction is 255. `unpainted` is the share
    of labelled pixels that the latter takes away: above 0, the mean leaves something out. `empty` says what
    becomes of a class that is neither in the truth nor predicted: "skip" it or count it as "zero".
    """

    def __init__(self, class_names: Sequence[str], *, empty: Literal["skip", "zero"] = "skip"):
        if not 1 <= len(class_names) <= IGNORE_INDEX:
            raise ValueError(f"{len(class_names)} classes; masks hold 1 to {IGNORE_INDEX}")
        self.class_names = tuple(class_names)
        self.empty = empty
        super().__init__()

    def reset(self) -> None:
        num_classes = len(self.class_names)
        self.confusion_KK = np.zeros((num_classes, num_classes), np.int64)
        self.unpainted_K = np.zeros(num_classes, np.int64)

    def update(self, predicted_HW: np.ndarray, truth_HW: np.ndarray) -> None:
        """Count one image's uint8 masks. Raises ValueError for a value that is neither a class nor 255."""
        if predicted_HW.shape != truth_HW.shape:
            raise ValueError(
                f"predicted mask is {predicted_HW.shape}, the truth {truth_HW.shape} (height, width)"
            )
        counts = joint_histogram(truth_HW, predicted_HW)
        num_classes = len(self.class_names)
        for what, by_value in (("true", counts.sum(axis=1)), ("predicted", counts.sum(axis=0))):
            strange = np.flatnonzero(by_value[num_classes:IGNORE_INDEX]) + num_classes
            if len(strange):
                raise ValueError(
                    f"{what} mask holds the value(s) {strange.tolist()}; "
                    f"classes are 0..{num_classes - 1} and {IGNORE_INDEX} is ignore"
                )
        self.confusion_KK += counts[:num_classes, :num_classes]
        self.unpainted_K += counts[:num_classes, IGNORE_INDEX]

    def merge(self, other: Self) -> None:
        self.confusion_KK = self.confusion_KK + other.confusion_KK
        self.unpainted_K = self.unpainted_K + other.unpainted_K

    def _mean(self, iou: np.ndarray, labelled_pixels: int) -> float:
        """0 where the truth has pixels but nothing was predicted, nan without truth."""
        if not labelled_pixels:
            return float("nan")
        return float(iou.mean()) if len(iou) else 0.0

    def compute(self) -> dict[str, float]:
        hits_K = self.confusion_KK.diagonal()
        union_K = self.confusion_KK.sum(axis=0) + self.confusion_KK.sum(axis=1) - hits_K
        iou_K = hits_K / np.maximum(union_K, 1)
        counted_K = (union_K > 0) | (self.empty == "zero")
        pixels, unpainted = int(self.confusion_KK.sum()), int(self.unpainted_K.sum())
        values = {
            "miou": self._mean(iou_K[counted_K], pixels + unpainted),
            "pixel_accuracy": float(hits_K.sum() / pixels) if pixels else float("nan"),
            "unpainted": unpainted / (pixels + unpainted) if pixels + unpainted else 0.0,
        }
        rows = zip(self.class_names, iou_K, counted_K, strict=True)
        return values | {f"iou/{name}": float(value) for name, value, counted in rows if counted}


def joint_histogram(first_HW: np.ndarray, second_HW: np.ndarray) -> np.ndarray:
    """Return how often each pair of uint8 values meets at a pixel, int64 [256, 256].

    OpenCV counts in whole numbers but answers in float32, exact up to 2**24: larger images go in strips.
    """
    counts = np.zeros((256, 256), np.int64)
    rows = max(1, _EXACT_IN_FLOAT32 // max(1, first_HW.shape[1]))
    for top in range(0, first_HW.shape[0], rows):
        strips = [np.ascontiguousarray(mask[top : top + rows]) for mask in (first_HW, second_HW)]
        counts += cv2.calcHist(strips, [0, 1], None, [256, 256], [0, 256, 0, 256]).astype(np.int64)
    return counts
