"""Pure loss functions that torch, torchvision and transformers lack."""

from ufo_large.losses.arcface import additive_angular_margin
from ufo_large.losses.boxes import paired_overlaps
from ufo_large.losses.depth import log_gradient_matching, scale_invariant_log
from ufo_large.losses.segmentation import inverse_frequency_weights, multiclass_dice, pixel_cross_entropy

__all__ = [
    "additive_angular_margin",
    "inverse_frequency_weights",
    "log_gradient_matching",
    "multiclass_dice",
    "paired_overlaps",
    "pixel_cross_entropy",
    "scale_invariant_log",
]
