"""Augmentation: from a stored sample to uint8 pixels and targets on the network's canvas."""

from ufo_large.data.transforms.base import Example, Transform, hermetic
from ufo_large.data.transforms.plain import PlainTransform

TRANSFORMS = {"plain": PlainTransform}

__all__ = ["TRANSFORMS", "Example", "PlainTransform", "Transform", "hermetic"]
