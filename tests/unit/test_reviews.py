"""Figures and mistakes of an evaluation, against scipy, pycocotools and values by hand."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.sparse import coo_array
from scipy.stats import binned_statistic

from ufo_large.kinds import kind_of
from ufo_large.kinds.boxes import match
from ufo_large.kinds.confusion import confusion_figures
from ufo_large.kinds.figures import MAX_CLASSES, MAX_PAIRS, Plot, Trace, figure_from_json, figure_to_json
from ufo_large.kinds.protocols import get_protocol
from ufo_large.kinds.review import SURE, WORST, Mistake, worth_a_look
from ufo_large.metrics import FoundBoxes, MeanAveragePrecision, TrueBoxes, reliability
from ufo_large.structures import TaskInfo


def task(kind, classes):
    names = tuple(f"class {i}" for i in range(classes))
    return TaskInfo(name="t", kind=kind, class_names=names, class_ids=tuple(range(classes)))


def reviewed(info, images):
    """Feed (said, truth, confidence) to the kind's review and metric."""
    kind = kind_of(info)
    review, metric = kind.review(info), kind.metric(info, get_protocol("standard"))
    for image, (said, truth, confidence) in enumerate(images):
        review.add(image, said, truth, confidence)
        kind.count(metric, image, said, truth)
    return review, metric


def test_reliability_equals_binning_by_scipy():
    rng = np.random.default_rng(0)
    confidence, right = rng.random(500), rng.random(500) < 0.6
    found = reliability(confidence, right, bins=10)
    for values, got in ((confidence, found.confidence_B), (right, found.accuracy_B)):
        want = binned_statistic(confidence, values, "mean", bins=np.linspace(0, 1, 11)).statistic
        np.testing.assert_allclose(got, want, rtol=1e-12)  # sums in another order: measured 4e-16
    np.testing.assert_array_equal(found.counts_B, np.histogram(confidence, np.linspace(0, 1, 11))[0])


def test_calibration_error_by_hand():
    """Two of three at 0.9 right: 0.9 - 2/3 weighs three quarters; one at 0.3 wrong: 0.3 weighs a quarter."""
    found = reliability(np.array([0.9, 0.9, 0.9, 0.3]), np.array([True, True, False, False]))
    assert found.expected_error == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.3)
    sure = reliability(np.array([0.0, 1.0]), np.array([False, True]))
    assert sure.expected_error == 0 and len(sure.counts_B) == 2
    assert np.isnan(reliability(np.zeros(0), np.zeros(0, bool)).expected_error)


def test_confusion_of_classes_equals_scipys_counts():
    rng = np.random.default_rng(0)
    true, said = rng.integers(0, 5, 300).tolist(), rng.integers(0, 5, 300).tolist()
    review, metric = reviewed(
        task("classification", 5), [(s, t, 0.5) for s, t in zip(said, true, strict=True)]
    )
    matrix, pairs, calibration = review.figures(metric)
    want = coo_array((np.ones(300, int), (true, said)), shape=(5, 5)).toarray()
    np.testing.assert_array_equal(matrix.counts, want)
    np.fill_diagonal(want, 0)
    assert pairs.rows[0][2] == want.max() and len(pairs.rows) == 12
    assert [row[2] for row in pairs.rows] == sorted(want.ravel().tolist(), reverse=True)[:12]
    assert calibration.title == "Calibration"


def test_answers_without_probabilities_have_no_calibration_and_foreign_ones_no_cell():
    review, metric = reviewed(task("classification", 2), [(0, 0, None), (-1, 1, None)])
    (matrix,) = review.figures(metric)
    assert matrix.counts == ((1, 0), (0, 0)) and set(review.mistakes(metric)) == {1}


def test_a_probability_may_be_rounded_above_one_but_a_logit_is_none():
    info = task("classification", 2)
    for confidence, figures in ((1 + 1e-7, 2), (3.5, 1), (float("nan"), 1)):
        review, metric = reviewed(info, [(0, 0, confidence)])
        assert len(review.figures(metric)) == figures


def test_a_thousand_classes_give_pairs_alone():
    count = 1000
    true = np.arange(count)
    figures = confusion_figures(
        [f"c{i}" for i in true], true, (true + 1) % count, np.ones(count, int), "images"
    )
    (pairs,) = figures
    assert len(pairs.rows) == MAX_PAIRS and pairs.rows[0] == ("c0", "c1", 1, 1.0)
    assert len(json.dumps(figure_to_json(pairs))) < 2000
    assert len(confusion_figures(["a"] * MAX_CLASSES, true[:2], true[:2], np.ones(2, int), "images")) == 1


def test_confusion_of_pixels_and_the_worst_mask_by_hand():
    truth = np.array([[0, 0, 1, 1], [255, 255, 1, 1]], np.uint8)
    half, right = np.array([[0, 1, 1, 1], [0, 1, 1, 0]], np.uint8), np.where(truth == 255, 0, truth)
    unknown = np.full((2, 4), 255, np.uint8)
    review, metric = reviewed(
        task("segmentation", 2), [(right, truth, None), (half, truth, None), (half, unknown, None)]
    )
    matrix, pairs = review.figures(metric)
    assert matrix.counts == ((3, 1), (1, 7)) and pairs.rows[0][:3] == ("class 0", "class 1", 1)
    assert review.mistakes(metric) == {0: Mistake(0.0), 1: Mistake(2 / 6)}


def test_the_worst_depth_map_by_hand():
    truth = np.array([[1.0, 2.0, 0.0, 4.0]], np.float32)
    said = np.array([[1.2, 2.6, 9.0, 4.0]], np.float32)
    review, metric = reviewed(task("depth", 0), [(said, truth, None)])
    assert review.mistakes(metric)[0].amount == pytest.approx(1 / 3) and review.figures(metric) == ()


def random_boxes(rng, count):
    corners = rng.integers(0, 60, (count, 2))
    return np.concatenate([corners, rng.integers(10, 30, (count, 2))], axis=1).astype(float)


def random_scenes(seed, classes=3):
    """Images whose found boxes lie near true ones; some true ones are crowds. Scores are all different."""
    rng, scenes = np.random.default_rng(seed), []
    for _ in range(12):
        true, labels = random_boxes(rng, 6), rng.integers(0, classes, 6)
        near = np.abs(true[rng.integers(0, 6, 15)] + rng.normal(0, 2, (15, 4)))
        found = FoundBoxes(boxes_xywh_N4=near, scores_N=rng.random(15), labels_N=rng.integers(0, classes, 15))
        scenes.append((found, TrueBoxes(boxes_xywh_G4=true, labels_G=labels, crowds_G=rng.random(6) < 0.2)))
    return scenes


def evaluated_by_pycocotools(scenes, classes=3):
    truths, found = [], []
    for image, (said, truth) in enumerate(scenes, 1):
        for box, label, crowd in zip(truth.boxes_xywh_G4, truth.labels_G, truth.crowds_G, strict=True):
            entry = {"id": len(truths) + 1, "image_id": image, "category_id": int(label) + 1}
            area = float(box[2] * box[3])
            truths.append(entry | {"bbox": box.tolist(), "area": area, "iscrowd": int(crowd)})
        for box, label, score in zip(said.boxes_xywh_N4, said.labels_N, said.scores_N, strict=True):
            entry = {"image_id": image, "category_id": int(label) + 1}
            found.append(entry | {"bbox": box.tolist(), "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i + 1} for i in range(len(scenes))],
            "categories": [{"id": i + 1} for i in range(classes)],
            "annotations": truths,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(4))
def test_hits_are_those_of_pycocotools(seed):
    scenes = random_scenes(seed)
    evaluation = evaluated_by_pycocotools(scenes)
    for image, (found, truth) in enumerate(scenes, 1):
        of_image = [e for e in evaluation.evalImgs if e and e["image_id"] == image and e["aRng"][1] > 1e9]
        left = [~e["dtIgnore"][0].astype(bool) for e in of_image[: len(of_image)] if e["aRng"][0] == 0]
        hits = [e["dtMatches"][0] > 0 for e in of_image if e["aRng"][0] == 0]
        scores = [np.array(e["dtScores"]) for e in of_image if e["aRng"][0] == 0]
        want = {
            float(s) for score, hit, kept in zip(scores, hits, left, strict=True) for s in score[hit & kept]
        }
        counted = {float(s) for score, kept in zip(scores, left, strict=True) for s in score[kept]}
        got = match(found, truth)
        assert set(got.scores_N[got.found_N].tolist()) == want
        assert set(got.scores_N.tolist()) == counted
        assert got.total == (~truth.crowds_G).sum()


@pytest.mark.parametrize("seed", range(4))
def test_curves_and_sizes_are_those_of_pycocotools(seed):
    scenes = random_scenes(seed)
    evaluation = evaluated_by_pycocotools(scenes)
    review, metric = reviewed(task("detection", 3), [(*scene, None) for scene in scenes])
    precision, f1, sizes = review.figures(metric)
    for trace, row in zip(precision.traces, (0, 5, 8), strict=True):
        want = evaluation.eval["precision"][row, :, :, 0, -1].mean(axis=1)
        np.testing.assert_allclose(trace.y, want, atol=1e-12)  # measured: 2e-16
        assert trace.x == pytest.approx(evaluation.params.recThrs.tolist())
    assert np.mean(precision.traces[0].y) == pytest.approx(metric.compute()["map50"])
    for row, stat in zip(sizes.rows, (0, 3, 4, 5), strict=True):
        want = evaluation.stats[stat]
        assert row[1] is None if want < 0 else row[1] == pytest.approx(want, abs=1e-12)
    assert max(f1.traces[0].y) == pytest.approx(best_f1(evaluation), abs=1e-12)


def best_f1(evaluation):
    """The best over a grid of confidences of the mean F1, from pycocotools' arrays, class by class."""
    precision, scores = (evaluation.eval[name][0, :, :, 0, -1] for name in ("precision", "scores"))
    recall = evaluation.params.recThrs
    means = []
    for least in np.linspace(0, 1, 101):
        of_class = []
        for p, s in zip(precision.T, scores.T, strict=True):
            reached = [
                2 * a * r / (a + r) for a, r, c in zip(p, recall, s, strict=True) if a > 0 and c >= least
            ]
            of_class.append(reached[-1] if reached else 0.0)
        means.append(np.mean(of_class))
    return max(means)


def test_f1_and_mistakes_by_hand():
    """One class, two true boxes. Found: a hit at 0.9, a wrong box at 0.5, the other hit at 0.405."""
    truth = TrueBoxes(boxes_xywh_G4=np.array([[0.0, 0, 9, 9], [20, 0, 9, 9]]), labels_G=np.array([0, 0]))
    boxes = np.array([[0.0, 0, 9, 9], [50, 50, 9, 9], [20, 0, 9, 9]])
    found = FoundBoxes(boxes_xywh_N4=boxes, scores_N=np.array([0.9, 0.5, 0.405]), labels_N=np.zeros(3, int))
    review, metric = reviewed(task("detection", 1), [(found, truth, None)])
    curves = metric.curves()
    at = dict(zip(curves.confidence_C.round(2).tolist(), curves.f1_C, strict=True))
    assert at[0.95] == 0 and at[0.6] == pytest.approx(2 / 3)  # recall 1/2 at precision 1
    assert at[0.3] == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))  # recall 1 at precision 2/3
    assert review.shown_from(metric) == 0.4 and review.mistakes(metric) == {0: Mistake(1, 0.5)}


def test_nothing_to_find_gives_no_curves():
    nothing = TrueBoxes(boxes_xywh_G4=np.zeros((0, 4)), labels_G=np.zeros(0, int))
    review, metric = reviewed(task("detection", 2), [(FoundBoxes(), nothing, None)])
    assert review.figures(metric) == () and review.mistakes(metric) == {0: Mistake(0)}
    assert isinstance(metric, MeanAveragePrecision)


@pytest.mark.parametrize("kind", ["classification", "detection"])
def test_parts_of_ranks_merge_to_the_same(kind):
    rng = np.random.default_rng(0)
    images = [
        (int(s), int(t), float(c)) for s, t, c in zip(*rng.integers(0, 3, (2, 9)), rng.random(9), strict=True)
    ]
    if kind == "detection":
        images = [(*scene, None) for scene in random_scenes(0)]
    info = task(kind, 3)
    whole, metric = reviewed(info, images)
    parts = [kind_of(info).review(info) for _ in range(2)]
    for image in reversed(range(len(images))):
        parts[image % 2].add(image, *images[image])
    parts[0].merge(parts[1])
    assert parts[0].figures(metric) == whole.figures(metric) != ()
    assert worth_a_look(parts[0].mistakes(metric), 3) == worth_a_look(whole.mistakes(metric), 3) != {}


def test_the_surest_of_the_others_follow_the_worst():
    mistakes = {0: Mistake(0), 1: Mistake(2, 0.9), 2: Mistake(5, 0.2), 3: Mistake(2, 0.3), 4: Mistake(1, 0.4)}
    assert worth_a_look(mistakes, 2) == {WORST: [2, 1], SURE: [4, 3]}
    assert worth_a_look({0: Mistake(0.0, 0.7), 1: Mistake(0.0, 0.8)}, 5) == {SURE: [1, 0]}
    assert worth_a_look({0: Mistake(0)}, 5) == {}


def test_figures_come_back_and_damaged_ones_are_refused():
    plot = Plot(title="t", x_name="x", y_name="y", traces=(Trace(name="a", x=(0.0, 1.0), y=(0.5, 0.25)),))
    good = json.loads(json.dumps(figure_to_json(plot)))
    assert figure_from_json(good) == plot
    line = good["traces"][0]
    for damage in (
        {"type": "picture"},
        {"title": 3},
        {"title": "x" * 1000},
        {"more": 1},
        {"traces": []},
        {"traces": [line | {"y": [0.5]}]},
        {"traces": [line | {"y": [0.5, 1e9]}]},
        {"traces": [line | {"x": [1.0, 0.0]}]},
        {"traces": [line | {"x": ["0", "1"]}]},
        {"traces": [line | {"x": [0.0] * 5000, "y": [0.0] * 5000}]},
        {"traces": 7},
    ):
        with pytest.raises(ValueError):
            figure_from_json(good | damage)
    for damaged in (None, 3, [], "plot", {"type": "matrix", "title": "", "names": ["a"], "counts": [[1, 2]]}):
        with pytest.raises(ValueError):
            figure_from_json(damaged)
