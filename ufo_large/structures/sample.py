"""One sample as a shard holds it, and the part of it that an input of the network shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ufo_large.structures.batch import SampleInfo


class BadSample(ValueError):
    """The bytes of a sample are not what they should be; the message says how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSample:
    """One sample as stored: encoded image and target, and its labels in the stored image's pixels.

    `labels` int64 [n]: what the kind's index holds of it (its class, the class of each box, the classes that
    its mask shows); empty where `labeled` is False. `columns`: the kind's further columns of the index, n
    rows each. `target`: the file beside the image, where the kind keeps one.
    """

    image: bytes
    sample: SampleInfo
    labeled: bool
    labels: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    target: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TileSample(SampleInfo):
    """A tile posing as an image: `height, width` are the tile's; `source` is the image it was cut from.

    `top, left`: its corner in the source. `overlap`: pixels shared with its neighbours.
    """

    top: int
    left: int
    overlap: int
    source: SampleInfo


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the stored image from (top, left) on, height x width, shown as out_height x out_width."""

    top: int
    left: int
    height: int
    width: int
    out_height: int
    out_width: int

    @property
    def out(self) -> tuple[int, int]:
        """(height, width) of what is shown."""
        return self.out_height, self.out_width

    def cut(self, array_HW: np.ndarray) -> np.ndarray:
        """Return the part of a map of the stored image."""
        return array_HW[self.top : self.top + self.height, self.left : self.left + self.width]
