"""Pictures of predictions: right words, right pixels, nothing out of the image."""

import json

import cv2
import numpy as np
import pytest
import torch

from ufo_large.kinds import PredictionExample, kind_of
from ufo_large.kinds.boxes import best_score, match
from ufo_large.media.drawing import class_color, draw_boxes, draw_mask, fit, focus, palette
from ufo_large.metrics import TrueBoxes
from ufo_large.structures import BoxPrediction, ClassPrediction, MaskPrediction, SampleInfo, TaskInfo
from ufo_large.testing.simulated_run import INFOS, invented_examples
from ufo_large.tracking import save_examples
from ufo_large.tracking.examples import read_examples


def sample(height=90, width=120):
    return SampleInfo(key="k", file_name="a.jpg", height=height, width=width, image_id=1, order=0)


def boxes_said(boxes, scores, labels):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return BoxPrediction(sample(), boxes, torch.tensor(scores), torch.tensor(labels, dtype=torch.int64))


def found(prediction):
    return kind_of(INFOS["dec"]).said(prediction)


def true_boxes(boxes_xywh, labels):
    return TrueBoxes(
        boxes_xywh_G4=np.array(boxes_xywh, float).reshape(-1, 4), labels_G=np.array(labels, np.int64)
    )


def draw_example(example):
    return next(kind_of(example.info).draw([example]))


def test_each_true_box_is_hit_once_and_only_by_its_class():
    said = boxes_said([[0, 0, 10, 10]] * 2 + [[20, 0, 30, 10]], [0.9, 0.8, 0.7], [0, 0, 0])
    hits = match(found(said), true_boxes([[0, 0, 10, 10], [20, 0, 10, 10]], [0, 1]))
    assert hits.found_N.tolist() == [True, False, False]
    assert hits.from_score(0.75) == (1, 1) and hits.from_score(0.95) == (0, 0)


def test_the_score_to_draw_from_has_the_best_f1():
    # By hand, F1 from each score on: 0.9 -> 2/3, 0.8 -> 2/4, 0.2 -> 4/5, 0.1 -> 4/6.
    said = boxes_said(
        [[0, 0, 10, 10], [50, 50, 60, 60], [20, 0, 30, 10], [70, 50, 80, 60]], [0.9, 0.8, 0.2, 0.1], [0] * 4
    )
    hits = match(found(said), true_boxes([[0, 0, 10, 10], [20, 0, 10, 10]], [0, 0]))
    assert best_score([hits]) == pytest.approx(0.2)
    nothing = match(found(boxes_said([], [], [])), true_boxes([], []))
    assert best_score([nothing]) == best_score([]) == 0.3


def test_words_of_right_and_wrong_classifications():
    info = INFOS["cls"]
    image = np.zeros((30, 40, 3), np.uint8)
    said = ClassPrediction(sample(), torch.tensor([0.1, 0.7, 0.2]))
    right, _ = draw_example(PredictionExample(info=info, image_HW3=image, prediction=said, truth=1))
    assert right.good and right.headline == "van <R&D>" and not right.wanted
    assert [name for name, _ in right.bars] == ["van <R&D>", "truck", "sedan"]
    wrong, _ = draw_example(PredictionExample(info=info, image_HW3=image, prediction=said, truth=0))
    assert wrong.good is False and wrong.wanted == "sedan"
    unknown, _ = draw_example(PredictionExample(info=info, image_HW3=image, prediction=said))
    assert unknown.good is None


def test_a_single_class_and_a_tiny_image_can_be_drawn():
    info = TaskInfo(name="cls", kind="classification", class_names=("only",), class_ids=(7,))
    said = ClassPrediction(sample(1, 1), torch.tensor([1.0]))
    example = PredictionExample(info=info, image_HW3=np.zeros((1, 1, 3), np.uint8), prediction=said, truth=0)
    card, picture = draw_example(example)
    assert card.bars == (("only", 1.0),) and picture.shape == (2, 2, 3)


def test_no_boxes_found_and_none_there():
    image = np.full((40, 60, 3), 90, np.uint8)
    empty = PredictionExample(
        info=INFOS["dec"], image_HW3=image, prediction=boxes_said([], [], []), truth=true_boxes([], [])
    )
    card, picture = draw_example(empty)
    assert card.headline == "0 of 0 found" and card.good and (picture == 90).all()


def test_boxes_are_drawn_where_they_are():
    picture = draw_boxes(
        np.zeros((100, 100, 3), np.uint8), np.array([[20.0, 40, 60, 80]]), [""], [3], np.zeros((0, 4))
    )
    colored = (picture == class_color(3)).all(axis=-1)
    assert colored[60, 20] and colored[60, 60] and colored[80, 40] and not colored[60, 40]
    truth = draw_boxes(
        np.zeros((100, 100, 3), np.uint8), np.zeros((0, 4)), [], [], np.array([[20.0, 40, 60, 80]])
    )
    assert (truth[40, 20:61] == 255).all(axis=-1).any() and not truth[50:70, 30:50].any()


def test_small_boxes_are_zoomed_in_on_and_stay_in_view():
    image = np.zeros((2048, 2048, 3), np.uint8)
    boxes = np.array([[2000.0, 100, 2030, 130], [1800, 160, 1840, 200]])
    left, top, right, bottom = focus(image, boxes)
    assert right - left < 1024 and abs((right - left) - (bottom - top)) <= 1
    assert (
        left <= 1800 and top <= 100 and right >= 2030 and bottom >= 200 and right <= 2048 and bottom <= 2048
    )
    assert (
        focus(image, np.array([[0.0, 0, 900, 900]])) == focus(image, np.zeros((0, 4))) == (0, 0, 2048, 2048)
    )


def test_ignored_pixels_keep_the_image_and_classes_get_their_colour():
    image = np.full((20, 20, 3), (200, 100, 0), np.uint8)
    mask = np.full((20, 20), 255, np.uint8)
    mask[:, 10:] = 2
    picture = draw_mask(image, mask, opacity=1.0)
    assert (picture[:, :10] == image[:, :10]).all() and (picture[:, 10:] == class_color(2)).all()


def test_pixel_accuracy_leaves_ignored_pixels_out():
    mask = torch.zeros(90, 120, dtype=torch.uint8)
    truth = np.full((90, 120), 255, np.uint8)
    truth[:2], truth[2] = 0, 1
    example = PredictionExample(
        info=INFOS["seg"],
        image_HW3=np.zeros((90, 120, 3), np.uint8),
        prediction=MaskPrediction(sample(), mask),
        truth=truth,
    )
    card, _ = draw_example(example)
    assert card.headline == "66.7 % of pixels right"
    assert [name for name, _ in card.legend] == ["road", "car"]


def test_class_colours_are_all_different():
    lab = cv2.cvtColor(np.float32([palette()]) / 255, cv2.COLOR_RGB2LAB)[0]
    gaps = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1e9 * np.eye(len(lab))
    # Just noticeable is about 2.3; measured: 62 among the first 8, 25 among all 40.
    assert gaps[:8, :8].min() > 50 and gaps.min() > 20


def test_pictures_are_never_larger_than_asked():
    assert fit(np.zeros((2048, 1024, 3), np.uint8), 560)[0].shape == (560, 280, 3)
    small, scale = fit(np.zeros((10, 30, 3), np.uint8), 560)
    assert small.shape == (20, 60, 3) and scale == 2.0


def test_examples_are_saved_and_read_back_and_replaced(tmp_path):
    random = np.random.default_rng(0)
    examples = [e for task in INFOS for e in invented_examples(task, random)]
    folder = save_examples(tmp_path, examples)
    cards = read_examples(tmp_path)
    assert [c.task for c in cards] == ["cls", "cls", "dec", "dec", "seg", "seg"]
    assert [c.good for c in cards] == [True, False, True, False, None, None]
    assert cards[2].headline == "2 of 2 found" and cards[3].headline == "0 of 0 found, 2 wrong"
    for card in cards:
        assert cv2.imread(str(folder / card.picture)).shape[1] >= 200
    save_examples(tmp_path, examples[:1])
    assert (
        len(list(folder.glob("*.jpg"))) == 1 and len(json.loads((folder / "examples.json").read_text())) == 1
    )
