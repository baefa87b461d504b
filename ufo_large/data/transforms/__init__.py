"""Augmentation: from a stored sample to uint8 pixels and targets on the network's canvas."""

from ufo_large.data.transforms.base import Transform, View, hermetic
from ufo_large.data.transforms.classification import ClassificationTransform
from ufo_large.data.transforms.depth import DepthTransform
from ufo_large.data.transforms.detection import DetectionTransform
from ufo_large.data.transforms.plain import PlainTransform
from ufo_large.data.transforms.segmentation import SegmentationTransform

TRANSFORMS: dict[str, type[Transform]] = {
    transform.name: transform
    for transform in (
        PlainTransform,
        ClassificationTransform,
        DetectionTransform,
        SegmentationTransform,
        DepthTransform,
    )
}

__all__ = [
    "TRANSFORMS",
    "ClassificationTransform",
    "DepthTransform",
    "DetectionTransform",
    "PlainTransform",
    "SegmentationTransform",
    "Transform",
    "View",
    "hermetic",
]
