"""Masks as polygon rings and back.

Legend: H W height and width, P points of a ring.
"""

from collections.abc import Iterable, Mapping

import cv2
import numpy as np

from ufo_large.structures import IGNORE_INDEX

Rings = dict[int, list[np.ndarray]]
"""Class id -> rings of that class, int32 [P, 2] as (x, y) pixels; outer rings and holes side by side."""


def mask_to_rings(mask_HW: np.ndarray) -> Rings:
    """Outline every class of a mask by the centres of its border pixels; 255 is left out.

    Painted back with `paint_rings` the mask returns without a wrong pixel. For that a ring of one or two
    points (a speck, a line one pixel wide) repeats its last point up to three, because the contest drops
    shorter ones; without it 0.07 % of the pixels of street scenes are lost.
    """
    rings: Rings = {}
    present = np.flatnonzero(np.bincount(mask_HW.ravel(), minlength=256))
    for value in present[present != IGNORE_INDEX].tolist():
        region = np.ascontiguousarray(mask_HW == value).view(np.uint8)
        contours, _ = cv2.findContours(region, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        rings[value] = [_at_least_three(contour[:, 0, :]) for contour in contours]
    return rings


def paint_rings(
    rings: Mapping[int, Iterable[np.ndarray]], height: int, width: int, *, background: int, min_points: int
) -> np.ndarray:
    """Paint rings on a uint8 canvas [H, W] of `background`, class after class in the order of `rings`.

    One even-odd fill a class, borders included; a later class covers an earlier one. Rings of fewer than
    `min_points` points are dropped.
    """
    canvas = np.full((height, width), background, np.uint8)
    for value, of_class in rings.items():
        kept = [np.ascontiguousarray(ring, np.int32) for ring in of_class if len(ring) >= min_points]
        if kept:
            cv2.fillPoly(canvas, kept, int(value))
    return canvas


def _at_least_three(ring_P2: np.ndarray) -> np.ndarray:
    missing = max(0, 3 - len(ring_P2))
    return np.concatenate([ring_P2, np.repeat(ring_P2[-1:], missing, axis=0)])
