"""Classification: the share of images whose best class is the true one.

Legend: B images, K classes.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np

from ufo_large.metrics.base import Metric


class Accuracy(Metric):
    """Top-1, top-5, the mean over classes of each class's top-1, and that of every class.

    Equal scores are ranked by label, lowest first, as argmax does; so top-1 is the same here and in a
    submission, which holds nothing but the argmax. Top-5 is left out once one image came without scores.
    """

    def __init__(self, class_names: Sequence[str]):
        self.class_names = tuple(class_names)
        super().__init__()

    def reset(self) -> None:
        self.totals_K = np.zeros(len(self.class_names), np.int64)
        self.hits_K = np.zeros_like(self.totals_K)
        self.hits5_K = np.zeros_like(self.totals_K)
        self.unscored = 0

    def update(self, scores_BK: np.ndarray, labels_B: np.ndarray) -> None:
        """Count images by their scores. Raises ValueError where a score is not finite."""
        scores_BK = np.asarray(scores_BK)
        labels_B = self._checked(labels_B)
        if scores_BK.shape != (len(labels_B), len(self.class_names)):
            raise ValueError(
                f"scores of shape {scores_BK.shape} for {len(labels_B)} labels "
                f"and {len(self.class_names)} classes"
            )
        if not np.isfinite(scores_BK).all():
            raise ValueError("class scores are not finite; the model has diverged or its weights are damaged")
        own_B1 = np.take_along_axis(scores_BK, labels_B[:, None], axis=1)
        before_BK = (scores_BK == own_B1) & (np.arange(scores_BK.shape[1]) < labels_B[:, None])
        rank_B = ((scores_BK > own_B1) | before_BK).sum(axis=1)
        self._count(self.totals_K, labels_B)
        self._count(self.hits_K, labels_B[rank_B < 1])
        self._count(self.hits5_K, labels_B[rank_B < 5])

    def update_best(self, best_B: np.ndarray, labels_B: np.ndarray) -> None:
        """Count images of which only the best class is known; -1 is a class that is not ours, so wrong."""
        labels_B = self._checked(labels_B)
        self._count(self.totals_K, labels_B)
        self._count(self.hits_K, labels_B[np.asarray(best_B) == labels_B])
        self.unscored += len(labels_B)

    def merge(self, other: Self) -> None:
        for name in ("totals_K", "hits_K", "hits5_K"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.unscored += other.unscored

    def compute(self) -> dict[str, float]:
        present = self.totals_K > 0
        by_class = self.hits_K[present] / self.totals_K[present]
        values = {"top1": _share(self.hits_K.sum(), self.totals_K.sum())}
        if not self.unscored:
            values["top5"] = _share(self.hits5_K.sum(), self.totals_K.sum())
        values["mean_class_top1"] = float(by_class.mean()) if present.any() else float("nan")
        names = [name for name, there in zip(self.class_names, present, strict=True) if there]
        return values | {f"top1/{name}": float(v) for name, v in zip(names, by_class, strict=True)}

    def _checked(self, labels_B: np.ndarray) -> np.ndarray:
        labels_B = np.asarray(labels_B, np.int64)
        if len(labels_B) and (labels_B.min() < 0 or labels_B.max() >= len(self.class_names)):
            raise ValueError(
                f"labels {labels_B.min()}..{labels_B.max()} do not fit {len(self.class_names)} classes"
            )
        return labels_B

    def _count(self, counts_K: np.ndarray, labels_B: np.ndarray) -> None:
        counts_K += np.bincount(labels_B, minlength=len(counts_K))


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")
