"""Metrics: accumulators that one process and several ranks fill to exactly the same numbers."""

from ufo_large.metrics.accuracy import Accuracy
from ufo_large.metrics.average_precision import FoundBoxes, MeanAveragePrecision, TrueBoxes
from ufo_large.metrics.base import Metric
from ufo_large.metrics.calibration import reliability
from ufo_large.metrics.depth import DepthError
from ufo_large.metrics.iou import MeanIoU, joint_histogram

__all__ = [
    "Accuracy",
    "DepthError",
    "FoundBoxes",
    "MeanAveragePrecision",
    "MeanIoU",
    "Metric",
    "TrueBoxes",
    "joint_histogram",
    "reliability",
]
