"""Predictions as a user gets them: JSON with class names, mask and depth files, COCO results, drawings."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from ufo_large.kinds import KINDS, PredictionExample, kind_of
from ufo_large.kinds.depth import DepthPrediction, decode_depth
from ufo_large.kinds.plain_values import plain
from ufo_large.kinds.protocols import PROTOCOLS
from ufo_large.structures import BoxPrediction, ClassPrediction, MaskPrediction, SampleInfo, TaskInfo

NAMES, IDS = ("road", "car", "sky"), (7, 26, 23)
SAMPLE = SampleInfo(key="0", file_name="a.jpg", height=4, width=6, image_id=3, order=2)
MASK_HW = np.array([[0, 0, 2, 2, 2, 2]] * 3 + [[0, 0, 0, 0, 0, 1]], np.uint8)


def info(kind: str, ids=IDS) -> TaskInfo:
    return TaskInfo(name="t", kind=kind, class_names=NAMES[: len(ids)], class_ids=ids)


def test_a_class_is_said_with_its_name_and_id():
    said = kind_of(info("classification")).described(
        ClassPrediction(SAMPLE, torch.tensor([0.25, 0.5, 0.25])), info("classification")
    )
    best = [
        {"class": "car", "class_id": 26, "score": 0.5},
        {"class": "road", "class_id": 7, "score": 0.25},
        {"class": "sky", "class_id": 23, "score": 0.25},
    ]
    assert json.loads(json.dumps(said)) == {**best[0], "best": best}


def found_boxes() -> BoxPrediction:
    boxes = torch.tensor([[0.5, 1.0, 4.5, 3.0], [0.1, 0.2, 5.0, 4.0]])
    return BoxPrediction(SAMPLE, boxes, torch.tensor([0.9, 0.2]), torch.tensor([2, 0]))


def test_boxes_are_said_in_pixels_and_as_coco_has_them():
    kind, of = KINDS["detection"], info("detection")
    said = json.loads(json.dumps(kind.described(found_boxes(), of)))["boxes"]
    assert said == [
        {"class": "sky", "class_id": 23, "score": 0.9, "box_xyxy": [0.5, 1.0, 4.5, 3.0]},
        {"class": "road", "class_id": 7, "score": 0.2, "box_xyxy": [0.1, 0.2, 5.0, 4.0]},
    ]
    first = kind.coco_results(found_boxes(), of)[0]
    assert first == {"image_id": 3, "category_id": 23, "bbox": [0.5, 1.0, 4.0, 2.0], "score": 0.9}


def test_a_mask_file_holds_the_users_class_ids():
    kind, of = KINDS["segmentation"], info("segmentation")
    prediction = MaskPrediction(SAMPLE, torch.from_numpy(MASK_HW))
    with Image.open(io.BytesIO(kind.encoded(prediction, of))) as image:
        assert image.mode == "L"
        assert (np.asarray(image) == np.array(IDS, np.uint8)[MASK_HW]).all()
    said = kind.described(prediction, of)["classes"]
    assert [(c["class"], c["class_id"], c["value"], c["pixels"]) for c in said] == [
        ("sky", 23, 23, 12),
        ("road", 7, 7, 11),
        ("car", 26, 26, 1),
    ]
    assert sum(c["share"] for c in said) == pytest.approx(1)


def test_class_ids_that_8_bits_cannot_hold_give_way_to_labels():
    kind, of = KINDS["segmentation"], info("segmentation", (7, 3000, 23))
    prediction = MaskPrediction(SAMPLE, torch.from_numpy(MASK_HW))
    with Image.open(io.BytesIO(kind.encoded(prediction, of))) as image:
        assert (np.asarray(image) == MASK_HW).all()
    said = kind.described(prediction, of)["classes"]
    assert {c["class"]: (c["class_id"], c["value"]) for c in said} == {
        "road": (7, 0),
        "car": (3000, 1),
        "sky": (23, 2),
    }


def test_answers_go_by_class_ids_of_any_size():
    kind, of = KINDS["segmentation"], info("segmentation", (7, 3000, 23))
    (entry,) = json.loads(json.dumps(kind.entries(MaskPrediction(SAMPLE, torch.from_numpy(MASK_HW)), of)))
    told: list[str] = []
    (answer,) = kind.answers([entry], of, [SAMPLE.file_name], told.append)
    found_HW = kind.answered(answer, of, MASK_HW, PROTOCOLS["standard"])
    assert not told and (found_HW == MASK_HW).all()


def test_a_mask_as_coco_has_it_decodes_to_the_same_pixels():
    kind, of = KINDS["segmentation"], info("segmentation")
    results = json.loads(json.dumps(kind.coco_results(MaskPrediction(SAMPLE, torch.from_numpy(MASK_HW)), of)))
    assert [(r["image_id"], r["category_id"]) for r in results] == [(3, 7), (3, 26), (3, 23)]
    for label, result in enumerate(results):
        expected_HW = np.equal(MASK_HW, label)
        assert (coco_mask.decode(result["segmentation"]) == expected_HW).all()


def test_a_depth_file_reads_back_as_the_metres():
    kind, of = KINDS["depth"], TaskInfo(name="t", kind="depth")
    depth_HW = torch.linspace(0.001, 80, 24).reshape(4, 6)
    prediction = DepthPrediction(SAMPLE, depth_HW)
    said = kind.described(prediction, of)
    read = decode_depth(kind.encoded(prediction, of)) / said["units_per_metre"]
    assert np.abs(read - depth_HW.numpy()).max() <= 1 / 256
    assert (read > 0).all()  # 0 means missing
    assert (said["nearest"], said["farthest"]) == (pytest.approx(0.001), pytest.approx(80))


def test_a_depth_beyond_16_bits_stays_at_the_farthest():
    kind, of = KINDS["depth"], TaskInfo(name="t", kind="depth")
    values = decode_depth(kind.encoded(DepthPrediction(SAMPLE, torch.full((4, 6), 1e4)), of))
    assert (values == 2**16 - 1).all()


def test_plain_values_are_json_whatever_they_were():
    value = {1: np.float32("nan"), "a": (torch.tensor([1.5, float("inf")]), np.int64(3), None, True)}
    assert plain(value) == {"1": None, "a": [[1.5, None], 3, None, True]}
    with pytest.raises(TypeError, match=r"object has no form in JSON.*described"):
        plain([object()])


def test_a_long_side_shows_all_of_the_picture():
    """A report zooms in on small boxes; a user's overlay is the whole picture, however small the boxes."""
    kind, of = KINDS["detection"], info("detection")
    image = np.zeros((400, 800, 3), np.uint8)
    image[:, :200] = (0, 0, 200)
    sample = SampleInfo(key="0", file_name="a", height=400, width=800, image_id=1, order=0)
    box = BoxPrediction(sample, torch.tensor([[700.0, 300, 706, 306]]), torch.ones(1), torch.tensor([0]))
    drawn = {}
    for long_side in (None, 600):
        example = PredictionExample(info=of, image_HW3=image, prediction=box, long_side=long_side)
        ((card, drawn[long_side]),) = kind.draw([example])
        assert ("zoomed in" in card.details) == (long_side is None)
    assert drawn[600].shape == (300, 600, 3)
    assert (drawn[600][0, :140] == (0, 0, 200)).all()
    assert not (drawn[None] == (0, 0, 200)).all(axis=2).any()
