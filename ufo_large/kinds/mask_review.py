"""Segmentation seen image by image: the confusion matrix of pixels, and the images with most wrong ones."""

import numpy as np

from ufo_large.kinds.confusion import confusion_figures
from ufo_large.kinds.figures import Figure
from ufo_large.kinds.review import Mistake, Review
from ufo_large.metrics import MeanIoU
from ufo_large.structures import IGNORE_INDEX


class MaskReview(Review):
    """Keeps the share of labelled pixels that are wrong."""

    def seen(self, said: np.ndarray, truth: np.ndarray, confidence: float | None) -> float | None:
        pixels = np.count_nonzero(truth != IGNORE_INDEX)
        wrong = np.count_nonzero((said != truth) & (truth != IGNORE_INDEX))
        return wrong / pixels if pixels else None

    def figures(self, metric: MeanIoU) -> tuple[Figure, ...]:
        true_P, said_P = metric.confusion_KK.nonzero()
        counts_P = metric.confusion_KK[true_P, said_P]
        return confusion_figures(self.info.class_names, true_P, said_P, counts_P, "pixels")

    def mistakes(self, metric: MeanIoU) -> dict[int, Mistake]:
        return {image: Mistake(share) for image, share in self.images.items()}
