"""Pure loss functions that torch, torchvision and transformers lack."""

from ufo_large.losses.arcface import additive_angular_margin
from ufo_large.losses.segmentation import inverse_frequency_weights, multiclass_dice, pixel_cross_entropy

__all__ = ["additive_angular_margin", "inverse_frequency_weights", "multiclass_dice", "pixel_cross_entropy"]
