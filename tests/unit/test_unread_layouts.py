"""Layouts that are not read are refused with the nearest reason, never taken for class folders or masks."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.structures import Findings
from ufo_large.testing.datasets import write_stripes

H, W = 30, 40
COCO = json.dumps({"images": [], "annotations": [], "categories": []})


def photo(path: Path) -> Path:
    """A picture of many colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def yolo_polygons(root: Path, split: str = "train") -> None:
    for stem in "ab":
        photo(root / split / f"images/{stem}.jpg")
    text(root / split / "labels/a.txt", "")
    text(root / split / "labels/b.txt", "0 0.5 0.5 0.2 0.2 0.4 0.4\n")


def yolo_by_lists(root: Path) -> None:
    """The lists say the splits, so the folders alone must not."""
    photo(root / "images/a.jpg")
    text(root / "labels/a.txt", "0 0.5 0.5 0.2 0.2\n")
    text(root / "train.txt", "images/a.jpg\n")


def darknet(root: Path) -> None:
    photo(root / "obj_train_data/part/a.jpg")
    text(root / "obj_train_data/part/a.txt", "0 0.5 0.5 0.2 0.2\n")
    text(root / "obj.data", "classes = 1\ntrain = train.txt\nnames = obj.names\n")


def yolo_beside_pictures(root: Path) -> None:
    for part in ("part1", "part2"):
        photo(root / part / "a.jpg")
        text(root / part / "a.txt", "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n")


def coco_of_another_name(root: Path) -> None:
    photo(root / "images/a.jpg")
    text(root / "annotations/instances_default.json", COCO)


def coco_beside_pictures(root: Path) -> None:
    photo(root / "images/a.jpg")
    text(root / "result.json", COCO)


def voc_of_other_names(root: Path) -> None:
    photo(root / "images/a.jpg")
    text(root / "annotations/a.xml", "<annotation></annotation>")


def voc_beside_pictures(root: Path) -> None:
    for part in ("part1", "part2"):
        photo(root / part / "a.jpg")
        text(root / part / "a.xml", "<annotation></annotation>")


def labelme(root: Path) -> None:
    for part in ("part1", "part2"):
        photo(root / part / "a.jpg")
        text(root / part / "a.json", '{"shapes": [], "imagePath": "a.jpg"}')


def masks_of_other_names(root: Path) -> None:
    photo(root / "train/rgb/a.jpg")
    write_stripes(root / "train/truth/a.png", 0, 1, 2)


def voc_segmentation(root: Path) -> None:
    photo(root / "JPEGImages/a.jpg")
    write_stripes(root / "SegmentationClass/a.png", 0, 1)


def no_mask_among_the_labels(root: Path) -> None:
    photo(root / "images/train/a.jpg")
    write_stripes(root / "labels/drivable/masks/train/a.png", 0, 1)


def empty_labels(root: Path) -> None:
    photo(root / "images/a.jpg")
    text(root / "labels/a.txt", "")


def one_folder_of_an_archive(root: Path) -> None:
    photo(root / "tt100k/train/1.jpg")
    text(root / "tt100k/annotations.json", '{"imgs": {}, "types": []}')


def split_and_kind_in_one_name(root: Path) -> None:
    photo(root / "train_images/a.jpg")
    photo(root / "test_images/b.jpg")


def pairs_of_translation(root: Path) -> None:
    for name in ("trainA", "trainB"):
        photo(root / name / "a.jpg")


UNREAD: dict[Callable[[Path], None], str] = {
    yolo_polygons: r"labels/b\.txt: YOLO is read where a data\.yaml names .*; write one into the folder",
    yolo_by_lists: r"labels/a\.txt: YOLO is read where",
    darknet: r"obj\.data: Darknet's list of files is not read; write a data\.yaml beside it",
    yolo_beside_pictures: r"part1/a\.txt: YOLO is read where",
    coco_of_another_name: r"instances_default\.json: COCO is read from annotations/instances_<split>\.json",
    coco_beside_pictures: r"result\.json: COCO is read from annotations/instances_<split>\.json",
    voc_of_other_names: r"a\.xml: VOC is read from Annotations/ and JPEGImages/",
    voc_beside_pictures: r"a\.xml: VOC is read from Annotations/ and JPEGImages/",
    labelme: r"a\.json: LabelMe's shapes are not read; write them as COCO",
    masks_of_other_names: r"truth/a\.png is a mask of rgb/a\.jpg .* name the folders images/ and masks/",
    voc_segmentation: r"JPEGImages: no name of a class; .*name the folders images/ and masks/",
    no_mask_among_the_labels: r"set/labels: no mask in it or in its train/ or val/; put those of",
    empty_labels: r"set/labels: no mask in it",
    one_folder_of_an_archive: r"no layout that is known, but its folder tt100k has one; give that",
    split_and_kind_in_one_name: r"test_images: no name of a class",
    pairs_of_translation: r"trainA: no name of a class",
}


@pytest.mark.parametrize("write", UNREAD, ids=lambda write: write.__name__)
def test_a_layout_that_is_not_read_is_refused_with_its_reason(write, tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    write(root)
    with pytest.raises(ValueError) as stop:
        make_shards([root], tmp_path / "out", ShardingOptions())
    assert re.search(UNREAD[write], str(stop.value)), stop.value
    assert not (tmp_path / "out").exists()


def problems(root: Path) -> str:
    findings = Findings()
    read_sources([root], findings)
    return "\n".join(item.message for item in findings.items)


def test_files_beside_class_folders_that_agree_with_them_are_no_hindrance(tmp_path):
    for name in ("cat", "dog"):
        photo(tmp_path / name / "1.jpg")
        photo(tmp_path / name / "2.jpg")
        text(tmp_path / name / "1.txt", "a caption with 5 words")
    text(tmp_path / "train.csv", "file,class\ncat/1.jpg,cat\ndog/1.jpg,dog\n")
    text(tmp_path / "weights.csv", "class,weight\ncat,0.5\n")
    text(tmp_path / "names.json", '{"0": "cat"}')
    text(tmp_path / "config.yaml", "author: someone\n")
    assert problems(tmp_path) == ""
    text(tmp_path / "train.csv", "name,label,set\ncat/1.jpg,0,a\ndog/1.jpg,1,a\n")
    assert problems(tmp_path) == ""
    text(tmp_path / "train.csv", "file,class\ncat/1.jpg,tabby\ncat/2.jpg,tiger\ndog/1.jpg,tabby\n")
    with pytest.raises(ValueError, match=r"train\.csv: .*move the table out if the folders are the classes"):
        problems(tmp_path)


def test_masks_and_yolo_labels_side_by_side_are_masks_where_they_have_a_folder(tmp_path):
    photo(tmp_path / "images/a.jpg")
    write_stripes(tmp_path / "masks/a.png", 0, 1)
    text(tmp_path / "classes.txt", "road\nsky\n")
    text(tmp_path / "list.csv", "name\na.jpg\n")
    text(tmp_path / "annotations.json", COCO)
    text(tmp_path / "labels/a.txt", "0 0.5 0.5 0.2 0.2\n")
    assert problems(tmp_path) == ""


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    photo(tmp_path / "cat/1.jpg")
    text(tmp_path / "runs.csv", "name,pixels\n1.jpg," + "7 " * 100_000 + "\n")
    with pytest.raises(
        ValueError, match=r"runs\.csv: cannot be read as a table \(field larger .*; correct it"
    ):
        problems(tmp_path)


def test_one_class_alone_is_refused(tmp_path):
    photo(tmp_path / "set/pictures/a.jpg")
    assert "cls: pictures is its only class, so every answer is right; add" in problems(tmp_path / "set")
    photo(tmp_path / "other/dog/a.jpg")
    findings = Findings()
    (both,) = read_sources([tmp_path / "set", tmp_path / "other"], findings)
    assert both.info.class_names == ("pictures", "dog") and not findings.items


def test_classes_of_two_folders_that_are_spelt_apart_are_reported(tmp_path):
    for name in ("one/stop sign", "one/a", "one/A", "two/Stop_Sign", "two/car"):
        photo(tmp_path / name / "a.jpg")
    findings = Findings()
    (both,) = read_sources([tmp_path / "one", tmp_path / "two"], findings)
    (item,) = findings.items
    assert "cls: one folder has the class 'stop sign', another 'Stop_Sign'; spell them alike" in item.message
    assert problems(tmp_path / "one") == ""  # letters may be classes
    (tmp_path / "two/Stop_Sign").rename(tmp_path / "two/stop sign")
    findings = Findings()
    read_sources([tmp_path / "one", tmp_path / "two"], findings)
    assert not findings.items


def test_a_folder_without_pictures_is_no_class(tmp_path):
    for name in ("cat", "dog"):
        photo(tmp_path / name / "a.jpg")
    text(tmp_path / "docs/notes.md", "nothing")
    assert "docs: no picture in it, so it is no class; add some, or move it out" in problems(tmp_path)


def test_pictures_beside_class_folders_are_not_passed_over(tmp_path):
    for name in ("cat", "dog"):
        photo(tmp_path / "train" / name / "a.jpg")
    photo(tmp_path / "train/loose.jpg")
    photo(tmp_path / "val/b.jpg")
    told = problems(tmp_path)
    assert "train: 1 pictures lie beside the class folders: loose.jpg; move them into one" in told
    assert "val: no class folders, so its pictures have no label; put them into cat, dog" in told
