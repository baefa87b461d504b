"""One file a task head."""

from ufo_large.structures import Kind
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.classification_linear import LinearClassifier
from ufo_large.tasks.detection_fcos import FCOSDetector
from ufo_large.tasks.segmentation_dense import DenseSegmenter

HEADS: dict[Kind, dict[str, type[TaskHead]]] = {
    "classification": {"linear": LinearClassifier},
    "detection": {"fcos": FCOSDetector},
    "segmentation": {"dense": DenseSegmenter},
}

__all__ = ["HEADS", "TaskHead"]
