"""Masks survive the way through rings, and rings are painted as the contest paints them."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ufo_large.kinds.polygons import mask_to_rings, paint_rings
from ufo_large.kinds.protocols import PROTOCOLS

ALL = range(256)
MINI = Path(os.environ.get("UFO_DATA") or Path(__file__).resolve().parents[3] / "shared/data/mini")


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("num_classes", [1, 2, 3, 19])
@pytest.mark.parametrize("blur", [1, 3, 5])
def test_noise_comes_back_without_a_wrong_pixel(protocol, num_classes, blur):
    """Far worse than any street: without repeated points 60 % of the pixels of 19-class noise were lost."""
    rng = np.random.default_rng(num_classes)
    mask = cv2.medianBlur(rng.integers(0, num_classes, (37, 53)).astype(np.uint8), blur)
    rings = mask_to_rings(mask)
    assert min(len(ring) for of_class in rings.values() for ring in of_class) >= 3
    np.testing.assert_array_equal(protocol.paint(rings, *mask.shape, ALL), mask)


def test_masks_of_real_streets_come_back_without_a_wrong_pixel():
    files = sorted((MINI / "track1_test_data/seg/label/test").glob("*.png"))[::10]
    if not files:
        pytest.skip(f"no real masks in {MINI}; set UFO_DATA to the folder of the mini data")
    wrong = 0
    for file in files:
        mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        wrong += (PROTOCOLS["standard"].paint(mask_to_rings(mask), *mask.shape, ALL) != mask).sum()
    assert wrong == 0


def test_ignored_pixels_get_no_rings():
    mask = np.array([[255, 255, 255], [255, 4, 255], [255, 255, 255]], np.uint8)
    rings = mask_to_rings(mask)
    assert list(rings) == [4]
    np.testing.assert_array_equal(PROTOCOLS["standard"].paint(rings, 3, 3, ALL), mask)


def test_a_hole_is_a_ring_of_the_same_fill():
    mask = np.ones((9, 9), np.uint8)
    mask[3:6, 3:6] = 0
    assert len(mask_to_rings(mask)[1]) == 2
    only_ones = paint_rings({1: mask_to_rings(mask)[1]}, 9, 9, background=7, min_points=3)
    np.testing.assert_array_equal(only_ones == 1, mask == 1)


def test_short_rings_and_order():
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]])
    rings = {5: [square], 3: [np.array([[1, 1]]), np.array([[3, 0], [3, 3]])]}
    official, standard = (PROTOCOLS[name].paint(rings, 4, 4, ALL) for name in ("official", "standard"))
    np.testing.assert_array_equal(official, [[5, 5, 5, 0], [5, 5, 5, 0], [5, 5, 5, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(standard, [[5, 5, 5, 3], [5, 3, 5, 3], [5, 5, 5, 3], [255, 255, 255, 3]])


def test_points_outside_the_image_are_cut_off():
    ring = np.array([[-5, -5], [1, -5], [1, 90], [-5, 90]])
    painted = PROTOCOLS["official"].paint({1: [ring]}, 3, 4, ALL)
    np.testing.assert_array_equal(painted, [[1, 1, 0, 0]] * 3)
