"""BDD100K's boxes and TT100K as their sites hand them out."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ufo_large.data.datasets.sources import read_sources
from ufo_large.structures import Findings, SourceTask
from ufo_large.testing.datasets import check_dataset


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), np.full((30, 40, 3), 40 * i + len(folder.name), np.uint8))


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def read(root: Path) -> tuple[SourceTask, str]:
    findings = Findings()
    (task,) = read_sources([root], findings)
    return task, "\n".join(item.message for item in findings.items)


def boxes_of(task: SourceTask, split: str = "train") -> dict[str, list]:
    names = task.info.class_names
    return {e.file_name: [(names[b.label], b.xyxy) for b in e.truth] for e in task.splits[split]}


def tt_box(category: str, *corners: float) -> dict:
    return {"category": category, "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))}


def tt100k(root: Path, name: str) -> Path:
    for split, stems in (("train", "12"), ("test", "3"), ("other", "4")):
        pictures(root / split, *(f"{stem}.jpg" for stem in stems))
    images = {
        "1": {"path": "train/1.jpg", "id": 1, "objects": [tt_box("p5", 1, 2, 11.5, 12)]},
        "2": {"path": "train/2.jpg", "id": 2, "objects": []},
        "3": {"path": "test/3.jpg", "id": 3, "objects": [tt_box("i1", 0, 0, 9, 9)]},
        "4": {"path": "other/4.jpg", "id": 4, "objects": [tt_box("w1", 0, 0, 9, 9)]},
    }
    write(root / name, {"types": ["i1", "p5", "w1", "p9"], "imgs": images})
    return root


def bdd_box(category: str, *corners: float) -> dict:
    return {"category": category, "box2d": dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))}


def bdd100k(root: Path, name: str) -> Path:
    pictures(root / "images/100k/train", "a.jpg", "b.jpg")
    pictures(root / "images/100k/val", "c.jpg")
    pictures(root / "images/100k/test", "d.jpg")
    lane = {"category": "lane", "poly2d": []}
    train = [
        {"name": "a.jpg", "labels": [bdd_box("rider", 1, 2, 11.5, 12), lane]},
        {"name": "b.jpg", "labels": None},
    ]
    write(root / name.format("train"), train)
    write(root / name.format("val"), [{"name": "c.jpg", "labels": [bdd_box("car", 0, 0, 9, 9)]}])
    return root


@pytest.mark.parametrize("name", ["annotations.json", "annotations_all.json"])
def test_tt100k(name, tmp_path):
    root = tt100k(tmp_path / "set", name)
    check_dataset([root], tmp_path / "out")
    task, told = read(root)
    assert told == "" and task.info.class_names == ("i1", "p5")
    assert boxes_of(task) == {"1.jpg": [("p5", (1, 2, 11.5, 12))], "2.jpg": []}
    assert boxes_of(task, "test") == {"3.jpg": [("i1", (0, 0, 9, 9))]} and "val" not in task.splits


@pytest.mark.parametrize("name", ["labels/det_20/det_{}.json", "labels/bdd100k_labels_images_{}.json"])
def test_bdd100k_boxes(name, tmp_path):
    root = bdd100k(tmp_path / "set", name)
    check_dataset([root], tmp_path / "out")
    task, told = read(root)
    assert told == "" and task.info.class_names == ("car", "rider")
    assert boxes_of(task) == {"a.jpg": [("rider", (1, 2, 11.5, 12))], "b.jpg": []}
    assert [e.truth for e in task.splits["test"]] == [None]


def test_bdd100k_classes_that_are_not_scored_are_crowds_of_those_that_are(tmp_path):
    """The pairs of ignore_mapping in BDD100K's det.toml."""
    name = "labels/det_20/det_{}.json"
    root = bdd100k(tmp_path, name)
    pairs = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}
    rows = [bdd_box(category, 1, 2, 3, 4) for category in pairs]
    rows.append(bdd_box("rider", 1, 2, 3, 4) | {"attributes": {"crowd": True, "occluded": False}})
    rows.append(bdd_box("rider", 1, 2, 3, 4) | {"attributes": {"crowd": False}})
    write(root / name.format("val"), [{"name": "c.jpg", "labels": rows}])
    task, told = read(root)
    assert told == "" and task.info.class_names == ("car", "pedestrian", "rider", "truck")
    (picture,) = task.splits["val"]
    found = [(task.info.class_names[box.label], box.crowd) for box in picture.truth]
    assert found == [*((name, True) for name in pairs.values()), ("rider", True), ("rider", False)]


def test_bdd100k_lists_nearly_all_pictures(tmp_path):
    name = "labels/det_20/det_{}.json"
    root = bdd100k(tmp_path, name)
    for i in range(400):
        (root / f"images/100k/val/{i}.jpg").touch()
    rows = [{"name": f"{i}.jpg"} for i in range(399)]
    write(root / name.format("val"), rows)
    task, told = read(root)  # 399.jpg and c.jpg are in no list
    assert told == "" and len(task.splits["val"]) == 399
    write(root / name.format("val"), rows[:-1])
    task, told = read(root)
    assert len(told.splitlines()) == 3 and "398.jpg: not in det_val.json" in told


def test_bdd100k_with_a_file_per_picture_is_refused_with_the_remedy(tmp_path):
    pictures(tmp_path / "images/100k/train", "a.jpg")
    write(tmp_path / "labels/100k/train/a.json", {"name": "a", "frames": []})
    with pytest.raises(
        ValueError, match=r"labels/100k: BDD100K's first labels.*; take its Detection 2020 Labels"
    ):
        read(tmp_path)


def test_bdd100k_defects_are_reported(tmp_path):
    name = "labels/det_20/det_{}.json"
    root = bdd100k(tmp_path, name)
    pictures(root / "images/100k/train", "e.jpg")
    box = bdd_box("car", 1, 2, 3, 4) | {"box2d": {"x1": 1, "y1": "2"}}
    rows = [{"name": "a.jpg", "labels": [box]}, {"name": "a.jpg"}, {"name": "../x.jpg"}, {"name": "g.jpg"}]
    write(root / name.format("train"), rows)
    task, told = read(root)
    for part in (
        "det_train.json: a.jpg: a box of 'car' at [1, '2', None, None] is no class and four numbers",
        "det_train.json: a.jpg: a.jpg stands twice",
        "'../x.jpg' leads out of its folder",
        "g.jpg: g.jpg is not in",
        "b.jpg: not in det_train.json, so its objects are unknown",
        "e.jpg: not in det_train.json",
    ):
        assert part in told, told
    assert len(told.splitlines()) == 6 and boxes_of(task) == {"a.jpg": []}


def test_bdd100k_boxes_and_masks_in_one_folder_are_refused(tmp_path):
    root = bdd100k(tmp_path, "labels/det_20/det_{}.json")
    (root / "labels/sem_seg/masks/train").mkdir(parents=True)
    with pytest.raises(ValueError, match="boxes and its masks .*into a folder of their own, and give both"):
        read(root)


def test_files_of_another_form_are_refused(tmp_path):
    write(tt100k(tmp_path / "tt", "annotations.json") / "annotations.json", {"imgs": [], "types": []})
    write(bdd100k(tmp_path / "bdd", "labels/det_20/det_{}.json") / "labels/det_20/det_val.json", {})
    for name, told in (("tt", "`imgs` is no object"), ("bdd", "no list of pictures")):
        with pytest.raises(ValueError, match=told):
            read(tmp_path / name)


def test_boxes_without_a_class_are_reported_and_make_none(tmp_path):
    name = "labels/det_20/det_{}.json"
    root = bdd100k(tmp_path / "bdd", name)
    corners = bdd_box("", 0, 0, 9, 9)["box2d"]
    write(
        root / name.format("val"),
        [{"name": "c.jpg", "labels": [{"box2d": corners}, bdd_box("car", *"abcd")]}],
    )
    task, told = read(root)
    assert task.info.class_names == ("car", "rider")
    assert "a box of None at [0, 0, 9, 9] is no class" in told and len(told.splitlines()) == 2
    root = tt100k(tmp_path / "tt", "annotations.json")
    content = json.loads((root / "annotations.json").read_text())
    content["imgs"]["1"]["objects"] = [{"category": ["p5"], "bbox": None}]
    content["imgs"]["2"]["objects"] = None
    write(root / "annotations.json", content)
    task, told = read(root)
    assert "a box of ['p5'] at [None, None, None, None] is no class" in told and len(told.splitlines()) == 1
    assert boxes_of(task) == {"1.jpg": [], "2.jpg": []}


@pytest.mark.parametrize("labels", ["car", ["car"], {"category": "car"}, 3])
def test_labels_of_another_form_are_refused(labels, tmp_path):
    name = "labels/det_20/det_{}.json"
    root = bdd100k(tmp_path, name)
    write(root / name.format("val"), [{"name": "c.jpg", "labels": labels}])
    with pytest.raises(ValueError, match=r"det_val.json: `labels` of c.jpg is no list of objects; unpack"):
        read(root)
