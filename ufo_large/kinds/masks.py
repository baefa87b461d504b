"""Masks in a user's files and in tiles: what the kinds with one value per pixel share.

Legend: H W height and width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from ufo_large.media.decode import require_size
from ufo_large.structures import IGNORE_INDEX, BadSample, RawSample, SampleInfo, Window

INVALID = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskCoding:
    """How a mask file's values become model labels.

    `table[v]` is the label of grey or palette value v, 255 = ignore, -1 = a value that is no class.
    `colors`, if any, maps 0xRRGGBB to a label instead, also of grey pictures; a colour not in it is no class.
    """

    table: tuple[int, ...]
    colors: dict[int, int] | None = None

    @classmethod
    def identity(cls, num_classes: int) -> "MaskCoding":
        """Values 0..K-1 are labels, 255 is ignore, the rest is no class."""
        return cls.from_values({v: v for v in range(num_classes)})

    @classmethod
    def from_values(cls, labels: dict[int, int]) -> "MaskCoding":
        """`labels` maps file values to model labels; 255 stays ignore unless it says otherwise."""
        labels = {IGNORE_INDEX: IGNORE_INDEX, **labels}
        return cls(table=tuple(labels.get(v, INVALID) for v in range(256)))

    def label_of(self, value: int) -> int:
        """Return the label of a value of the file, 255 = ignore, -1 = no class."""
        if self.colors is not None:
            return self.colors.get(value, INVALID)
        return self.table[value] if 0 <= value < len(self.table) else INVALID

    def labels_of(self, values_HW: np.ndarray) -> np.ndarray:
        """Return the labels int16 [H, W] of a mask's values, 255 = ignore, -1 = no class."""
        if self.colors is None:
            table = np.array([*self.table, INVALID], np.int16)
            return table[np.clip(values_HW, -1, len(self.table))]
        labels_HW = np.full(values_HW.shape, INVALID, np.int16)
        for color, label in self.colors.items():
            labels_HW[values_HW == color] = label
        return labels_HW

    def renumbered(self, new_labels: Iterable[int]) -> "MaskCoding":
        """Send label i to `new_labels[i]`; ignore and invalid stay."""
        new = dict(enumerate(new_labels))
        return MaskCoding(
            table=tuple(new.get(v, v) if v != IGNORE_INDEX else v for v in self.table),
            colors=None if self.colors is None else {c: new.get(v, v) for c, v in self.colors.items()},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskFile:
    """The truth of a user's image to segment: a file of values, and what they mean."""

    path: Path
    coding: MaskCoding


def window_of_map(
    raw: RawSample, window: Window, decode: Callable[[bytes], np.ndarray], what: str
) -> tv_tensors.Mask:
    """Decode the sample's target, a map of the image, cut the window and resize it to the nearest value.

    Raises BadSample where the map is missing or has another size than the image.
    """
    if raw.target is None:
        raise BadSample(f"a labeled sample without {what}")
    require_size(raw.target, (raw.sample.height, raw.sample.width), what)
    map_HW = decode(raw.target)
    part = window.cut(map_HW)
    if part.shape != window.out:
        part = cv2.resize(part, window.out[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(part)))


def padded(maps: Sequence[Tensor], canvas: tuple[int, int], fill: float) -> Tensor:
    """Stack maps [h, w] at the top left of canvases filled with `fill`, [B, H, W]."""
    stacked = torch.full((len(maps), *canvas), fill, dtype=maps[0].dtype)
    for target, source in zip(stacked, maps, strict=True):
        height, width = source.shape[-2:]
        target[:height, :width] = source
    return stacked


def pasted(source: SampleInfo, parts: Sequence[tuple[Any, Tensor]]) -> Tensor:
    """Join maps of (tile, [h, w]); of what two share, each has the half on its own side."""
    whole_HW = parts[0][1].new_zeros(source.height, source.width)
    rows, columns = sorted({tile.top for tile, _ in parts}), sorted({tile.left for tile, _ in parts})
    for tile, map_HW in parts:
        skip_y = _half_shared(rows, tile.top, tile.height)
        skip_x = _half_shared(columns, tile.left, tile.width)
        bottom, right = tile.top + tile.height, tile.left + tile.width
        whole_HW[tile.top + skip_y : bottom, tile.left + skip_x : right].copy_(map_HW[skip_y:, skip_x:])
    return whole_HW


def _half_shared(starts: list[int], start: int, size: int) -> int:
    """Return half of the pixels that the tile at `start` shares with the one before it, along one side."""
    before = [s for s in starts if s < start]
    return (before[-1] + size - start) // 2 if before else 0
