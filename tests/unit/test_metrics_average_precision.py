"""Average precision against pycocotools, and exact merging."""

import contextlib
import io
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ufo_large.metrics import FoundBoxes, MeanAveragePrecision, TrueBoxes

KEYS = ("map", "map50", "map75", "map_small", "map_medium", "map_large")


def random_scene(seed):
    """Images with few or very many detections, tied scores, crowds, empty images, boxes without extent."""
    rng = np.random.default_rng(seed)
    num_classes = int(rng.integers(1, 6))
    scene = []
    for _ in range(int(rng.integers(2, 20))):
        num_true = int(rng.integers(0, 7))
        corners, sizes = rng.integers(0, 200, (num_true, 2)), rng.integers(0, 130, (num_true, 2))
        boxes = np.concatenate([corners, sizes], axis=1).astype(float)
        labels = rng.integers(0, num_classes, num_true)
        num_found = int(rng.integers(0, 300 if seed % 3 == 0 else 12))
        found, found_labels = rng.random((num_found, 4)) * 100, rng.integers(0, num_classes, num_found)
        if num_true:
            chosen = rng.integers(0, num_true, num_found)
            found = np.maximum(boxes[chosen] + rng.integers(-6, 7, (num_found, 4)), 0)
            found_labels = np.where(rng.random(num_found) < 0.8, labels[chosen], found_labels)
        scores = np.round(rng.random(num_found), 1 if seed % 2 else 6)
        scene.append(
            (
                FoundBoxes(boxes_xywh_N4=found, scores_N=scores, labels_N=found_labels),
                TrueBoxes(boxes_xywh_G4=boxes, labels_G=labels, crowds_G=rng.random(num_true) < 0.2),
            )
        )
    return [f"c{i}" for i in range(num_classes)], scene


def pycocotools_stats(names, scene):
    """Written from the scene alone, as a user would who has only pycocotools."""
    annotations, found = [], []
    for image, (detections, truth) in enumerate(scene):
        for box, label, crowd in zip(truth.boxes_xywh_G4, truth.labels_G, truth.crowds_G, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image + 1,
                    "category_id": int(label) + 1,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(crowd),
                }
            )
        for box, score, label in zip(
            detections.boxes_xywh_N4, detections.scores_N, detections.labels_N, strict=True
        ):
            entry = {"image_id": image + 1, "category_id": int(label) + 1, "bbox": box.tolist()}
            found.append(entry | {"score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i + 1} for i in range(len(scene))],
            "categories": [{"id": i + 1} for i in range(len(names))],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def filled(names, scene, images=None):
    metric = MeanAveragePrecision(names)
    for image in range(len(scene)) if images is None else images:
        metric.update(image, *scene[image])
    return metric


@pytest.mark.parametrize("seed", range(16))
def test_equals_pycocotools(seed):
    """Measured over 60 seeds: at most 2.3e-16 apart."""
    names, scene = random_scene(seed)
    evaluation = pycocotools_stats(names, scene)
    values = filled(names, scene).compute()
    want = np.where(evaluation.stats[:6] < 0, np.nan, evaluation.stats[:6])
    np.testing.assert_allclose([values[key] for key in KEYS], want, rtol=0, atol=1e-12, equal_nan=True)
    for k, name in enumerate(names):
        curve = evaluation.eval["precision"][0, :, k, 0, -1]
        assert (f"ap50/{name}" in values) == (curve[0] >= 0)
        if curve[0] >= 0:
            assert values[f"ap50/{name}"] == pytest.approx(curve.mean(), abs=1e-12)


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_parts_merge_to_the_very_same_figures(seed):
    """Odd seeds have tied scores, which COCO ranks by the order of images."""
    names, scene = random_scene(seed)
    parts = [filled(names, scene, range(rank, len(scene), 3)) for rank in (2, 0, 1)]
    for part in parts[1:]:
        parts[0].merge(part)
    merged, whole = parts[0].compute(), filled(names, scene).compute()
    assert merged.keys() == whole.keys()
    np.testing.assert_array_equal(list(merged.values()), list(whole.values()))


def test_one_box_by_hand():
    """IoU of 10 x 10 boxes 2 px apart: 80 / 120 = 0.667, so right at 4 of the 10 thresholds."""
    truth = TrueBoxes(boxes_xywh_G4=np.array([[0.0, 0, 10, 10]]), labels_G=np.array([0]))
    found = FoundBoxes(
        boxes_xywh_N4=np.array([[2.0, 0, 10, 10]]), scores_N=np.array([0.5]), labels_N=np.array([0])
    )
    values = filled(["a", "b"], [(found, truth)]).compute()
    assert values["map50"] == 1.0 and values["map75"] == 0.0
    assert values["map"] == pytest.approx(0.4, abs=1e-15)
    assert "ap50/b" not in values  # no true box


def test_nothing_found_is_zero_and_nothing_true_is_nan():
    truth = TrueBoxes(boxes_xywh_G4=np.array([[0.0, 0, 10, 10]]), labels_G=np.array([0]))
    nothing = TrueBoxes(boxes_xywh_G4=np.zeros((0, 4)), labels_G=np.zeros(0, np.int64))
    assert filled(["a"], [(FoundBoxes(), truth)]).compute()["map50"] == 0.0
    assert math.isnan(filled(["a"], [(FoundBoxes(), nothing)]).compute()["map50"])


def test_an_image_given_twice_or_a_nan_is_refused():
    names, scene = random_scene(3)
    metric = filled(names, scene)
    with pytest.raises(ValueError, match="image number 0 was given twice"):
        metric.update(0, *scene[0])
    with pytest.raises(ValueError, match="evaluated on two ranks"):
        metric.merge(filled(names, scene, [1]))
    bad = FoundBoxes(
        boxes_xywh_N4=np.array([[0, 0, np.nan, 1]]), scores_N=np.ones(1), labels_N=np.zeros(1, np.int64)
    )
    with pytest.raises(ValueError, match="image number 99: a box or score is not finite"):
        metric.update(99, bad, scene[0][1])


def test_crowds_alone_give_no_figure():
    metric = MeanAveragePrecision(("a",))
    box, label = np.array([[1.0, 1.0, 5.0, 5.0]]), np.zeros(1, np.int64)
    found = FoundBoxes(boxes_xywh_N4=box, scores_N=np.ones(1), labels_N=label)
    metric.update(0, found, TrueBoxes(boxes_xywh_G4=box, labels_G=label, crowds_G=np.ones(1, bool)))
    assert metric.num_true == 0 and np.isnan(metric.compute()["map50"])
