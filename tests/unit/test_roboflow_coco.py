"""Roboflow's COCO: the annotations lie beside the pictures of each split."""

import json
from pathlib import Path

import cv2
import numpy as np

from ufo_large.data.datasets.sources import read_sources
from ufo_large.structures import Findings
from ufo_large.testing.datasets import check_dataset

H, W = 30, 40
CATEGORIES = [
    {"id": 0, "name": "signs", "supercategory": "none"},
    {"id": 1, "name": "limit", "supercategory": "signs"},
    {"id": 2, "name": "stop", "supercategory": "signs"},
]


def split(folder: Path, names: str, boxes: list[dict]) -> None:
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        pixels = np.full((H, W, 3), 40 * i + len(folder.name), np.uint8)
        assert cv2.imwrite(str(folder / f"{name}.jpg"), pixels)
    images = [{"id": i, "file_name": f"{n}.jpg", "height": H, "width": W} for i, n in enumerate(names)]
    body = {"info": {}, "images": images, "annotations": boxes, "categories": CATEGORIES}
    (folder / "_annotations.coco.json").write_text(json.dumps(body))


def data_set(root: Path) -> Path:
    split(root / "train", "ab", [{"id": 0, "image_id": 1, "category_id": 2, "bbox": [1, 2, 10, 5.5]}])
    split(root / "valid", "c", [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9]}])
    return root


def test_each_split_is_read_with_the_classes_that_boxes_may_have(tmp_path):
    root = data_set(tmp_path / "set")
    check_dataset([root], tmp_path / "out")
    (task,) = read_sources([root], Findings())
    # category 0 is the data set's name
    assert task.info.class_names == ("limit", "stop") and task.info.class_ids == (1, 2)
    assert {name: len(examples) for name, examples in task.splits.items()} == {"train": 2, "val": 1}
    (box,) = task.splits["train"][1].truth
    assert box.xyxy == (1, 2, 11, 7.5) and box.label == 1 and task.splits["train"][0].truth == ()


def test_a_super_category_that_a_box_has_is_a_class(tmp_path):
    root = data_set(tmp_path)
    split(root / "test", "d", [{"id": 0, "image_id": 0, "category_id": 0, "bbox": [0, 0, 9, 9]}])
    (task,) = read_sources([root], Findings())
    assert task.info.class_names == ("signs", "limit", "stop")


def test_a_file_without_split_folders_is_train(tmp_path):
    split(tmp_path / "set", "a", [])
    (task,) = read_sources([tmp_path / "set"], Findings())
    assert list(task.splits) == ["train"] and task.splits["train"][0].truth == ()


def test_pictures_beside_the_splits_are_not_passed_over(tmp_path):
    root = data_set(tmp_path)
    split(root / "holdout", "e", [])
    findings = Findings()
    read_sources([root], findings)
    (item,) = findings.items
    assert "holdout: not read beside train, valid" in item.message
