"""Accuracy and IoU against values by hand; merging is exact however images are split over ranks."""

import copy
import math
import pickle

import numpy as np
import pytest

from ufo_large.metrics import Accuracy, MeanIoU, joint_histogram

NAMES = [f"c{i}" for i in range(7)]


def test_accuracy_by_hand():
    metric = Accuracy(["a", "b", "c"])
    scores = np.array([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    metric.update(scores, np.array([1, 0, 2, 1]))  # right, right, wrong, a tie lost to the lower label
    values = metric.compute()
    assert values["top1"] == 0.5
    assert values["top5"] == 1.0  # only three classes
    assert values["top1/a"] == 1.0 and values["top1/b"] == 0.5 and values["top1/c"] == 0.0
    assert values["mean_class_top1"] == 0.5


def test_top5_by_hand():
    metric = Accuracy(NAMES)
    falling = np.arange(7, 0, -1.0)[None]
    for label in range(7):
        metric.update(falling, np.array([label]))
    assert metric.compute()["top5"] == 5 / 7


def test_accuracy_of_ties_equals_argmax():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 3, (500, 7)).astype(np.float32), rng.integers(0, 7, 500)
    by_scores, by_best = Accuracy(NAMES), Accuracy(NAMES)
    by_scores.update(scores, labels)
    by_best.update_best(scores.argmax(axis=1), labels)
    assert by_scores.compute()["top1"] == by_best.compute()["top1"] == (scores.argmax(1) == labels).mean()
    assert "top5" not in by_best.compute()


def test_accuracy_refuses_nan_and_foreign_labels():
    metric = Accuracy(["a", "b"])
    with pytest.raises(ValueError, match="not finite"):
        metric.update(np.array([[np.nan, 1.0]]), np.array([0]))
    with pytest.raises(ValueError, match="do not fit 2 classes"):
        metric.update(np.array([[0.0, 1.0]]), np.array([2]))
    assert math.isnan(metric.compute()["top1"])


def test_iou_by_hand():
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], np.uint8)
    found = np.array([[0, 1, 1, 1], [0, 0, 2, 2]], np.uint8)
    skip, zero = MeanIoU(["a", "b", "c", "d"]), MeanIoU(["a", "b", "c", "d"], empty="zero")
    for metric in (skip, zero):
        metric.update(found, truth)
    values = skip.compute()
    assert values["iou/a"] == 3 / 4 and values["iou/b"] == 2 / 4 and values["iou/c"] == 0.0
    assert "iou/d" not in values and values["pixel_accuracy"] == 5 / 7
    assert values["miou"] == pytest.approx((3 / 4 + 2 / 4) / 3, abs=1e-15)
    assert zero.compute()["miou"] == pytest.approx((3 / 4 + 2 / 4) / 4, abs=1e-15)


def test_iou_leaves_unpainted_pixels_out_and_says_so():
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    metric = MeanIoU(["a", "b"])
    metric.update(np.array([[0, 255, 1, 255]], np.uint8), truth)
    assert metric.compute()["miou"] == 1.0 and metric.compute()["unpainted"] == 0.5
    metric.reset()
    metric.update(np.full((1, 4), 255, np.uint8), truth)
    assert metric.compute()["miou"] == 0.0 and metric.compute()["unpainted"] == 1.0


def test_iou_without_truth_is_nan():
    metric = MeanIoU(["a", "b"])
    metric.update(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    assert math.isnan(metric.compute()["miou"])


@pytest.mark.parametrize("which", ["true", "predicted"])
def test_iou_names_values_that_are_no_class(which):
    masks = {"true": np.zeros((2, 2), np.uint8), "predicted": np.zeros((2, 2), np.uint8)}
    masks[which][0, 1] = 9
    with pytest.raises(ValueError, match=rf"{which} mask holds the value\(s\) \[9\]"):
        MeanIoU(["a", "b"]).update(masks["predicted"], masks["true"])


def test_joint_histogram_equals_counting():
    rng = np.random.default_rng(1)
    first, second = (rng.integers(0, 256, (61, 47)).astype(np.uint8) for _ in range(2))
    want = np.zeros((256, 256), np.int64)
    np.add.at(want, (first.ravel(), second.ravel()), 1)
    np.testing.assert_array_equal(joint_histogram(first, second), want)


def test_joint_histogram_is_exact_beyond_what_float32_counts():
    first = np.zeros((4099, 4097), np.uint8)  # 16,793,603 pixels, odd and above 2**24
    assert joint_histogram(first, first)[0, 0] == first.size


@pytest.mark.parametrize("kind", ["accuracy", "iou"])
def test_merged_parts_equal_one_process(kind):
    rng = np.random.default_rng(2)
    metric = Accuracy(NAMES) if kind == "accuracy" else MeanIoU(NAMES)
    images = [_image(kind, rng) for _ in range(11)]
    parts = [copy.deepcopy(metric) for _ in range(3)]
    for i, image in enumerate(images):
        metric.update(*image)
        parts[i % 3].update(*image)
    merged = pickle.loads(pickle.dumps(parts[2]))
    for part in parts[:2]:
        merged.merge(part)
    assert merged.compute() == metric.compute()


def _image(kind, rng):
    if kind == "accuracy":
        return rng.random((3, 7)), rng.integers(0, 7, 3)
    return tuple(rng.choice([0, 1, 2, 6, 255], (9, 13)).astype(np.uint8) for _ in range(2))
