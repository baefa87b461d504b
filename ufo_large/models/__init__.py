"""The trunk, its pyramid, the multitask model, weights in and out."""

from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.pyramid import SimplePyramid
from ufo_large.models.trunk import Trunk

__all__ = ["MultitaskModel", "SimplePyramid", "Trunk"]
