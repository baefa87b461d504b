"""One file a task head."""

from ufo_large.structures import Kind
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.classification_arcface import ArcFaceClassifier
from ufo_large.tasks.classification_grid import GridClassifier
from ufo_large.tasks.classification_linear import LinearClassifier
from ufo_large.tasks.detection_detr import DETRDetector
from ufo_large.tasks.detection_fcos import FCOSDetector
from ufo_large.tasks.segmentation_dense import DenseSegmenter
from ufo_large.tasks.segmentation_mask2former import Mask2FormerSegmenter

HEADS: dict[Kind, dict[str, type[TaskHead]]] = {
    "classification": {"linear": LinearClassifier, "grid": GridClassifier, "arcface": ArcFaceClassifier},
    "detection": {"fcos": FCOSDetector, "detr": DETRDetector},
    "segmentation": {"dense": DenseSegmenter, "mask2former": Mask2FormerSegmenter},
}

__all__ = ["HEADS", "TaskHead"]
