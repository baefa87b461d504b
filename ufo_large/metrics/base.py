"""What metrics have in common: feed images, merge the parts of several ranks, ask for named numbers."""

from abc import ABC, abstractmethod
from typing import Self


class Metric(ABC):
    """Accumulate images with `update`, whose arguments each metric states itself.

    A metric keeps whole numbers, raw predictions or figures of single images, never running averages, so that
    the parts of several ranks merge to exactly what one process would have got, in whatever order. It can be
    pickled.
    """

    def __init__(self):
        self.reset()

    @abstractmethod
    def reset(self) -> None:
        """Forget every image."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add what `other`, fed with different images, has seen."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return name -> value, shares of 1 unless the metric says otherwise; nan where no image can say."""
