"""Depth errors against values by hand and plain numpy per image; merging is exact in any order."""

import itertools
import math
import pickle

import numpy as np
import pytest

from ufo_large.metrics import DepthError

NAMES = ("delta1", "delta2", "delta3", "absrel", "rmse", "silog")


def test_errors_by_hand():
    """Truth 1, 2, 4 and one pixel unknown; predicted 1, 3, 2: ratios 1, 1.5 and 2, none but 1 below 1.25."""
    metric = DepthError()
    metric.update(0, np.array([[1.0, 3.0], [2.0, 9.0]]), np.array([[1.0, 2.0], [4.0, 0.0]]))
    values = metric.compute()
    assert tuple(values) == NAMES
    assert values["delta1"] == pytest.approx(1 / 3)  # below 1.25
    assert values["delta2"] == pytest.approx(2 / 3)  # below 1.5625
    assert values["delta3"] == pytest.approx(2 / 3)  # below 1.953125
    assert values["absrel"] == pytest.approx((0 + 1 / 2 + 2 / 4) / 3)
    assert values["rmse"] == pytest.approx(math.sqrt((0 + 1 + 4) / 3))
    logs = (0.0, math.log(1.5), -math.log(2))
    variance = sum(v * v for v in logs) / 3 - (sum(logs) / 3) ** 2
    assert values["silog"] == pytest.approx(100 * math.sqrt(variance))


def test_the_limit_itself_is_outside():
    metric = DepthError()
    metric.update(0, np.array([[1.25, 1.0]]), np.array([[1.0, 1.25]]))
    assert metric.compute()["delta1"] == 0 and metric.compute()["delta2"] == 1


def test_each_image_counts_alike_however_many_pixels_it_has():
    metric = DepthError()
    metric.update(0, np.full((1, 1), 2.0), np.full((1, 1), 1.0))
    metric.update(1, np.full((10, 10), 4.0), np.full((10, 10), 4.0))
    values = metric.compute()
    assert values["delta1"] == 0.5 and values["absrel"] == 0.5 and values["rmse"] == 0.5
    assert values["silog"] == 0


def test_equals_plain_numpy_per_image():
    images = _images(7)
    values = _filled(images).compute()
    for name, expected in _reference(images).items():
        assert values[name] == pytest.approx(expected, rel=1e-12), name  # measured 4e-16


def _reference(images):
    """The figures as BTS's and AdaBins' evaluation define them, per image, then their mean."""
    rows = []
    for predicted_HW, truth_HW in images.values():
        predicted = predicted_HW[truth_HW > 0].astype(np.float64)
        truth = truth_HW[truth_HW > 0].astype(np.float64)
        ratio = np.maximum(truth / predicted, predicted / truth)
        error = np.log(predicted) - np.log(truth)
        rows.append(
            {
                "delta1": (ratio < 1.25).mean(),
                "delta2": (ratio < 1.25**2).mean(),
                "delta3": (ratio < 1.25**3).mean(),
                "absrel": (np.abs(truth - predicted) / truth).mean(),
                "rmse": np.sqrt(((truth - predicted) ** 2).mean()),
                "silog": np.sqrt((error**2).mean() - error.mean() ** 2) * 100,
            }
        )
    return {name: sum(row[name] for row in rows) / len(rows) for name in NAMES}


def test_parts_merged_in_any_order_equal_one_process_bitwise():
    images = _images(6)
    whole = _filled(images).compute()
    assert _filled(dict(reversed(images.items()))).compute() == whole
    for order in itertools.permutations(range(3)):
        parts = [_filled({i: image for i, image in images.items() if i % 3 == rank}) for rank in order]
        merged = pickle.loads(pickle.dumps(parts[0]))
        for part in parts[1:]:
            merged.merge(part)
        assert merged.compute() == whole


def test_images_without_depth_are_left_out():
    images = _images(3)
    metric = _filled(images)
    before = metric.compute()
    metric.update(99, np.ones((2, 2)), np.zeros((2, 2)))
    assert metric.compute() == before
    metric.reset()
    assert all(math.isnan(value) for value in metric.compute().values())
    metric.update(99, np.ones((2, 2)), np.zeros((2, 2)))
    assert tuple(metric.compute()) == NAMES and all(math.isnan(v) for v in metric.compute().values())


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_predictions_that_are_no_depth_are_refused(bad):
    predicted_HW = np.ones((2, 3), np.float32)
    predicted_HW[1, 2] = bad
    with pytest.raises(ValueError, match="image number 4: 1 of 6 predicted depths"):
        DepthError().update(4, predicted_HW, np.ones((2, 3)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_truth_that_is_no_depth_is_refused(bad):
    truth_HW = np.ones((2, 3), np.float32)
    truth_HW[0, 0] = bad
    with pytest.raises(ValueError, match="image number 4: 1 of 6 true depths"):
        DepthError().update(4, np.ones((2, 3)), truth_HW)


def test_shapes_and_image_numbers_are_checked():
    metric = _filled(_images(2))
    with pytest.raises(ValueError, match=r"\(2, 3\), the truth \(3, 2\)"):
        metric.update(5, np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="image number 1 was given twice"):
        metric.update(1, np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"image number\(s\) \[0, 1\] were evaluated on two ranks"):
        metric.merge(_filled(_images(2)))


def _images(count):
    """Number -> (predicted, truth) in float32, of unlike sizes, a fifth of the pixels without depth."""
    rng = np.random.default_rng(0)
    images = {}
    for number in range(count):
        shape = (11 + number, 17)
        truth_HW = rng.uniform(0.5, 80, shape).astype(np.float32)
        predicted_HW = truth_HW * rng.lognormal(0.05, 0.3, shape).astype(np.float32)
        truth_HW[rng.random(shape) < 0.2] = 0
        images[number] = predicted_HW, truth_HW
    return images


def _filled(images):
    metric = DepthError()
    for number, image in images.items():
        metric.update(number, *image)
    return metric
