"""Which shape a micro-batch has: how many images a rank takes and the canvas they are put on.

Every rank uses the same shape at the same micro-step, so the ranks do equal work by construction.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class BatchShape:
    """`images` a rank and their canvas (height, width)."""

    images: int
    canvas: tuple[int, int]


class BatchShapes(ABC):
    """Parts a data set by shape and gives each part's shape at a micro-step.

    `part_of` int64 [n]: the part of each sample. Samples of different parts never share a micro-step.
    """

    part_of: np.ndarray

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Options; sizes come with `build`."""

        def build(self, heights: np.ndarray, widths: np.ndarray, full: BatchShape) -> "BatchShapes":
            raise NotImplementedError

    @abstractmethod
    def shape(self, part: int, seed: int) -> BatchShape:
        """Return the shape of a micro-batch of `part`; `seed` is the same on all ranks."""


class FixedShape(BatchShapes):
    """Every micro-batch has the recipe's own size."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(BatchShapes.Config):
        """No options."""

        def build(self, heights: np.ndarray, widths: np.ndarray, full: BatchShape) -> "FixedShape":
            return FixedShape(len(heights), full)

    def __init__(self, num_samples: int, full: BatchShape):
        self.part_of, self.full = np.zeros(num_samples, dtype=np.int64), full

    def shape(self, part: int, seed: int) -> BatchShape:
        return self.full


BATCH_SHAPES = {"fixed": FixedShape}
