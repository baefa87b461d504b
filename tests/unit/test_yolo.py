"""YOLO data sets as Ultralytics and Roboflow write them: data.yaml beside pictures and rows of numbers."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.doctor import diagnose, write_fix
from ufo_large.structures import Findings, SourceTask
from ufo_large.testing.datasets import check_dataset

H, W = 30, 40
ULTRALYTICS = "path: ../datasets/signs\ntrain: images/train\nval: images/val\nnames:\n  0: stop\n  1: limit\n"
ROBOFLOW = "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['stop', 'limit']\n"


def picture(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((H, W, 3), value, np.uint8))
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def data_set(root: Path, train: str, val: str, yaml: str) -> Path:
    """Two pictures of train, one of val; `train` and `val` are folders of pictures."""
    text(root / "data.yaml", yaml)
    for folder, stem in ((train, "a"), (train, "b"), (val, "c")):
        picture(root / folder / f"{stem}.jpg")
    labels = [folder.replace("images", "labels") for folder in (train, val)]
    text(root / labels[0] / "a.txt", "1 0.5 0.5 0.25 0.2\n0 0.25 0.5 0.5 1\n")
    text(root / labels[1] / "c.txt", "0 0.1 0.1 0.3 0.1 0.3 0.5 0.1 0.5\n")
    return root


def ultralytics(root: Path) -> Path:
    return data_set(root, "images/train", "images/val", ULTRALYTICS)


def roboflow(root: Path) -> Path:
    return data_set(root, "train/images", "valid/images", ROBOFLOW)


def read(root: Path) -> tuple[SourceTask, str]:
    findings = Findings()
    (task,) = read_sources([root], findings)
    return task, "\n".join(item.message for item in findings.items)


def boxes_of(task: SourceTask, split: str = "train") -> list[list[tuple]]:
    return [[(box.label, *np.round(box.xyxy, 6)) for box in e.truth] for e in task.splits[split]]


@pytest.mark.parametrize("write", [ultralytics, roboflow], ids=lambda write: write.__name__)
def test_rows_become_boxes_in_pixels(write, tmp_path):
    root = write(tmp_path / "set")
    check_dataset([root], tmp_path / "out")
    task, told = read(root)
    assert told == "" and task.info.kind == "detection" and task.info.name == "dec"
    assert task.info.class_names == ("stop", "limit") and task.info.class_ids == (0, 1)
    assert [e.file_name for e in task.splits["train"]] == ["a.jpg", "b.jpg"]
    # by hand: centre (20, 15), size (10, 6); a picture without a file shows no object
    assert boxes_of(task) == [[(1, 15, 12, 25, 18), (0, 0, 0, 20, 30)], []]
    # the polygon's bounding box
    assert boxes_of(task, "val") == [[(0, 4, 3, 12, 15)]]


def test_sizes_are_not_required_to_agree_between_pictures(tmp_path):
    root = ultralytics(tmp_path)
    assert cv2.imwrite(str(root / "images/train/b.jpg"), np.full((2 * H, 3 * W, 3), 9, np.uint8))
    text(root / "labels/train/b.txt", "1 0.5 0.5 0.5 0.5")
    assert boxes_of(read(root)[0])[1] == [(1, 30, 15, 90, 45)]


def test_several_folders_and_lists_of_files(tmp_path):
    root = ultralytics(tmp_path)
    picture(root / "images/more/a.jpg")
    text(root / "labels/more/a.txt", "0 0.5 0.5 0.5 0.5\n")
    text(root / "lists/val.txt", "../nowhere.jpg\nimages/val/c.jpg\n\n/else/d.jpg\nimages/val/e.jpg\n")
    yaml = "train: [images/train, images/more]\nval: lists/val.txt\nnames: [stop, limit]\n"
    text(root / "data.yaml", yaml)
    task, told = read(root)
    names = [e.file_name for e in task.splits["train"]]
    assert names == ["images/train/a.jpg", "images/train/b.jpg", "images/more/a.jpg"]
    assert [e.file_name for e in task.splits["val"]] == ["images/val/c.jpg"]
    assert boxes_of(task)[2] == [(0, 10, 7.5, 30, 22.5)]
    lines = told.splitlines()
    assert len(lines) == 3 and "val.txt:1: '../nowhere.jpg' leads out" in lines[0]
    assert "val.txt:4: '/else/d.jpg' leads out of its folder" in lines[1]
    assert "val.txt:5: images/val/e.jpg is not there" in lines[2]


def test_lists_name_pictures_relative_to_themselves_or_the_root(tmp_path):
    root = ultralytics(tmp_path)
    text(root / "train.txt", "./images/train/b.jpg\n" + str(root / "images/train/a.jpg") + "\n")
    text(root / "data.yaml", "train: train.txt\nnames: [stop, limit]\n")
    task, told = read(root)
    assert told == "" and [e.file_name for e in task.splits["train"]] == [
        "images/train/b.jpg",
        "images/train/a.jpg",
    ]


@pytest.mark.parametrize("line", ["{root}/../secret.jpg", "../secret.jpg", "{root}/images/../../secret.jpg"])
def test_a_list_never_leads_out_of_the_folder(line, tmp_path):
    """Also where the path begins with the folder, and where a folder of the picture's name lies inside."""
    root = ultralytics(tmp_path / "set")
    picture(tmp_path / "secret.jpg")
    (root / "secret.jpg").mkdir()
    text(root / "train.txt", f"images/train/a.jpg\n{line.format(root=root)}\n")
    text(root / "data.yaml", "train: train.txt\nnames: [stop, limit]\n")
    task, told = read(root)
    assert [e.file_name for e in task.splits["train"]] == ["images/train/a.jpg"] and "secret.jpg" in told


def test_pictures_in_sub_folders_and_labels_beside_them(tmp_path):
    picture(tmp_path / "photos/day/a.jpg")
    text(tmp_path / "photos/day/a.txt", "0 0.5 0.5 0.5 0.5\n")
    text(tmp_path / "signs.yaml", "train: photos\nnames: [stop]\n")
    task, told = read(tmp_path)
    assert told == "" and task.splits["train"][0].file_name == "day/a.jpg"
    assert boxes_of(task) == [[(0, 10, 7.5, 30, 22.5)]]


def test_a_test_split_without_labels_has_no_truth(tmp_path):
    root = ultralytics(tmp_path)
    picture(root / "images/test/d.jpg")
    text(root / "data.yaml", ULTRALYTICS + "test: images/test\n")
    task, told = read(root)
    assert told == "" and task.splits["test"][0].truth is None
    text(root / "labels/test/d.txt", "")
    assert read(root)[0].splits["test"][0].truth == ()


def test_key_points_behind_the_box_are_left_out(tmp_path):
    root = ultralytics(tmp_path)
    text(root / "data.yaml", ULTRALYTICS + "kpt_shape: [2, 2]\n")
    text(root / "labels/train/a.txt", "1 0.5 0.5 0.25 0.2 0.1 0.1 0.9 0.9\n")
    text(root / "labels/val/c.txt", "")
    task, told = read(root)
    assert told == "" and boxes_of(task)[0] == [(1, 15, 12, 25, 18)]


BAD_ROWS = {
    "2 0.5 0.5 0.2 0.2": "class 2 is none of the 2 that are named",
    "0.5 0.5 0.5 0.2 0.2": "class 0.5 is no whole number",
    "0 0.5 0.5 0.2": "4 numbers; a row is a class and 4 numbers, or a class and at least 3 points",
    "0 0.5 0.5 0.2 0.2 0.9": "6 numbers",
    "0 0.1 0.1 0.3 0.1 0.3 0.5 0.1": "8 numbers",
    "0 20 15 10 6": "20 is not in 0..1; write shares of the picture's width and height, not pixels",
    "0 0.5 0.5 nan 0.2": "nan is not in 0..1",
    "stop 0.5 0.5 0.2 0.2": "'stop' is no number",
    "1 0.5 0.5 0.25 0.2": "the same as line 1",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_bad_rows_are_reported_with_their_line_and_left_out(row, tmp_path):
    root = ultralytics(tmp_path)
    text(root / "labels/train/a.txt", f"1 0.5 0.5 0.25 0.2\n\n{row}\n")
    task, told = read(root)
    assert f"labels/train/a.txt:3: {BAD_ROWS[row]}" in told and "\n" not in told
    assert len(boxes_of(task)[0]) == 1


def test_fix_leaves_out_bad_rows_and_no_picture(tmp_path):
    root = ultralytics(tmp_path / "set")
    text(root / "labels/train/a.txt", "1 0.5 0.5 0.25 0.2\n9 0.5 0.5 0.2 0.2\n1 0.95 0.5 0.3 0.2\n")
    cv2.imwrite(str(root / "images/val/c.jpg"), np.full((H, W, 3), 30, np.uint8))
    cv2.imwrite(str(root / "images/train/b.jpg"), np.full((H, W, 3), 220, np.uint8))
    done = "\n".join(write_fix(diagnose([root]), tmp_path / "fixed"))
    assert "labels/train/a.txt:2: class 9 is none of" in done and "1 box(es) clipped, 0 dropped" in done
    (task,) = read_sources([tmp_path / "fixed"], Findings())
    assert boxes_of(task) == [[(1, 15, 12, 25, 18), (1, 32, 12, 40, 18)], []]


def test_what_lies_about_is_reported(tmp_path):
    root = ultralytics(tmp_path)
    text(root / "labels/train/z.txt", "0 0.5 0.5 0.2 0.2\n")
    text(root / "labels/train/classes.txt", "stop\nlimit\n")
    (root / "images/train/b.jpg").write_bytes(b"no picture")
    picture(root / "images/extra/d.jpg")
    task, told = read(root)
    assert "labels/train/z.txt: no picture of that name" in told
    assert "images/train/b.jpg: not a picture that can be read; replace the file" in told
    assert "extra: not read beside train, val" in told
    assert len(told.splitlines()) == 3 and len(task.splits["train"]) == 1


def test_a_split_without_any_label_file_is_read_from_the_wrong_place(tmp_path):
    root = ultralytics(tmp_path)
    (root / "labels").rename(root / "annots")
    _, told = read(root)
    place = root / "labels/train"
    assert f"images/train: none of its 2 pictures has a label file in {place}; put them there" in told


BAD_YAML = {
    "train: images/train\nnames: [stop, stop]\n": "'stop' stands twice in names",
    "train: images/train\nnames: [stop]\nnc: 2\n": "nc is 2, but names lists 1",
    "train: images/train\nnames: {a: stop}\n": "names: write a list, or numbers with names",
    "train: images/train\nnames: []\n": "names: write a list, or numbers with names",
    "train: ../../images/train\nnames: [stop]\n": "'../../images/train' leads out of its folder",
    "train: /data/images/train\nnames: [stop]\n": "'/data/images/train' leads out of its folder",
    "train: images/nowhere\nnames: [stop]\n": "train: no images/nowhere in",
    "train: 3\nnames: [stop]\n": "train: 3 is no path or list of paths",
    "names: [stop]\n": "no train, val or test; write train: images/train",
    "train: [images/train\nnames: [stop]\n": "data.yaml: not YAML",
    "train: !!python/object/apply:os.getcwd []\nnames: [stop]\n": "data.yaml: not YAML",
}


@pytest.mark.parametrize("yaml", BAD_YAML)
def test_a_bad_data_yaml_is_refused_with_the_remedy(yaml, tmp_path):
    root = ultralytics(tmp_path)
    text(root / "data.yaml", yaml)
    with pytest.raises(ValueError, match=r"data\.yaml") as stop:
        read(root)
    assert BAD_YAML[yaml] in str(stop.value)


def test_two_files_that_describe_a_data_set_are_refused(tmp_path):
    root = ultralytics(tmp_path)
    (root / "data.yaml").rename(root / "a.yaml")
    text(root / "b.yaml", ULTRALYTICS)
    with pytest.raises(ValueError, match=r"a\.yaml, b\.yaml: each describes a YOLO data set; keep one"):
        read(root)
    text(root / "data.yaml", ULTRALYTICS)
    assert read(root)[0].info.num_classes == 2


BARE = {"by kind": "images/{0}:labels/{0}", "by split": "{0}/images:{0}/labels"}


@pytest.mark.parametrize("name", BARE)
def test_folders_without_a_data_yaml(name, tmp_path):
    root = tmp_path / "set"
    images, labels = BARE[name].split(":")
    for split, rows in (("train", "2 0.5 0.5 0.25 0.2\n"), ("valid", "0 0.25 0.5 0.5 1\n")):
        picture(root / images.format(split) / "a.jpg", len(split))
        text(root / labels.format(split) / "a.txt", rows)
    picture(root / images.format("train") / "empty.jpg", 7)
    check_dataset([root], tmp_path / "out")
    task, told = read(root)
    assert told == "" and (task.info.name, task.info.kind) == ("dec", "detection")
    assert task.info.class_names == ("0", "2") and task.info.class_ids == (0, 2)
    assert boxes_of(task) == [[(1, 15, 12, 25, 18)], []] and boxes_of(task, "val") == [[(0, 0, 0, 20, 30)]]
    text(root / "obj.names", "stop\nlimit\nyield\n")
    picture(root / images.format("test") / "c.jpg", 9)
    task, told = read(root)
    assert [e.truth for e in task.splits["test"]] == [None]
    assert told == "" and task.info.class_names == ("stop", "limit", "yield")
    assert boxes_of(task)[0] == [(2, 15, 12, 25, 18)]


def test_label_tools_write_classes_beside_one_folder_of_each(tmp_path):
    picture(tmp_path / "images/a.jpg")
    text(tmp_path / "labels/a.txt", "1 0.5 0.5 0.25 0.2\n9 0.5 0.5 0.2 0.2\n")
    text(tmp_path / "labels/classes.txt", "stop\nlimit\n")
    text(tmp_path / "labels/z.txt", "0 0.5 0.5 0.2 0.2\n")
    task, told = read(tmp_path)
    assert boxes_of(task) == [[(1, 15, 12, 25, 18)]] and task.info.class_names == ("stop", "limit")
    assert (
        "a.txt:2: class 9 is none of the 2 that are named" in told
        and "z.txt: no picture of that name" in told
    )
    assert len(told.splitlines()) == 2
    text(tmp_path / "classes.txt", "limit\nstop\n")
    with pytest.raises(ValueError, match=r"classes\.txt, .*classes\.txt: other classes in each; keep one"):
        read(tmp_path)


def test_polygons_and_key_points_need_a_data_yaml(tmp_path):
    """The eleventh file is the first that has some."""
    for i in range(11):
        picture(tmp_path / f"images/{i:02}.jpg")
        text(
            tmp_path / f"labels/{i:02}.txt",
            "0 0.5 0.5 0.25 0.2\n" if i < 10 else "0 0.1 0.1 0.3 0.1 0.3 0.5\n",
        )
    with pytest.raises(
        ValueError, match=r"10\.txt:1: 7 numbers may be a polygon or key points, .* data\.yaml"
    ):
        read(tmp_path)


def test_linked_folders_are_read_and_hidden_ones_are_not(tmp_path):
    """A disk of another site, and the small pictures that a file server makes beside large ones."""
    root = ultralytics(tmp_path / "set")
    picture(tmp_path / "elsewhere/d.jpg", 50)
    (root / "images/train/site").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(root / "images/train")
    (tmp_path / "elsewhere/above").symlink_to(tmp_path)
    text(root / "labels/train/site/d.txt", "1 0.5 0.5 0.2 0.2\n")
    picture(root / "images/train/.@__thumb/a.jpg", 20)
    task, told = read(root)
    assert [e.file_name for e in task.splits["train"]] == ["a.jpg", "b.jpg", "site/d.jpg"] and not told
    assert [len(e.truth) for e in task.splits["train"]] == [2, 0, 1]


def test_a_picture_that_is_turned_in_viewers_is_refused_where_boxes_are_shares(tmp_path):
    """They may be meant of the turned picture, which Ultralytics and label tools show."""
    root = ultralytics(tmp_path)
    turned = Image.open(root / "images/train/a.jpg")
    turned.getexif()[ExifTags.Base.Orientation] = 6
    turned.save(root / "images/train/a.jpg", exif=turned.getexif())
    found = diagnose([root])
    assert "a.jpg: an EXIF tag turns it, so it is not clear which way" in found.unfit[0].message
    assert "a.jpg" not in [e.file_name for e in found.healthy[0].splits["train"]]


def test_a_name_that_is_not_utf_8_is_told_with_the_others(tmp_path):
    root = ultralytics(tmp_path)
    (root / "images/train/b.jpg").rename(os.fsdecode(os.fsencode(root / "images/train/") + b"/caf\xe9.jpg"))
    found = diagnose([root])
    assert found.unfit[0].message.startswith(
        f"{root}/images/train/caf\\xe9.jpg: its name is not UTF-8; rename"
    )
    found.unfit[0].message.encode()
