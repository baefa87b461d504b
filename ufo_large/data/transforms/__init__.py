"""Augmentation: from a stored sample to uint8 pixels and targets on the network's canvas."""

from ufo_large.data.transforms.base import Example, Transform, hermetic
from ufo_large.data.transforms.classification import ClassificationTransform
from ufo_large.data.transforms.detection import DetectionTransform
from ufo_large.data.transforms.plain import PlainTransform
from ufo_large.data.transforms.segmentation import SegmentationTransform

TRANSFORMS = {
    "plain": PlainTransform,
    "classification": ClassificationTransform,
    "detection": DetectionTransform,
    "segmentation": SegmentationTransform,
}

__all__ = [
    "TRANSFORMS",
    "ClassificationTransform",
    "DetectionTransform",
    "Example",
    "PlainTransform",
    "SegmentationTransform",
    "Transform",
    "hermetic",
]
