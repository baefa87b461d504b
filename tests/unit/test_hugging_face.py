"""Hugging Face's imagefolder: metadata.jsonl or metadata.csv beside the pictures."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ufo_large.data.datasets.sources import read_sources
from ufo_large.structures import Findings, SourceTask
from ufo_large.testing.datasets import check_dataset


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), np.full((20, 30, 3), 40 * i + len(folder.name), np.uint8))


def jsonl(file: Path, *rows: dict) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def read(root: Path) -> tuple[SourceTask, str]:
    findings = Findings()
    (task,) = read_sources([root], findings)
    return task, "\n".join(item.message for item in findings.items)


def classes(root: Path) -> Path:
    pictures(root / "train/cats", "1.png")
    pictures(root / "train/dogs", "1.png", "2.png")
    pictures(root / "validation", "9.png")
    jsonl(
        root / "train/metadata.jsonl",
        {"file_name": "cats/1.png", "label": "tabby"},
        {"file_name": "dogs/1.png", "label": "collie"},
        {"file_name": "dogs/2.png", "label": "tabby"},
    )
    (root / "validation/metadata.csv").write_text("file_name,label\n9.png,collie\n")
    return root


def objects(name: str, categories: list, *boxes: list) -> dict:
    return {"file_name": name, "objects": {"bbox": list(boxes), "categories": categories}}


def boxes(root: Path) -> Path:
    pictures(root / "train", "a.png", "b.png")
    rows = objects("a.png", [7, 3], [1, 2, 10, 5.5], [0, 0, 4, 4]), objects("b.png", [])
    jsonl(root / "train/metadata.jsonl", *rows)
    return root


def test_labels_win_over_the_names_of_folders(tmp_path):
    check_dataset([classes(tmp_path / "set")], tmp_path / "out")
    task, told = read(tmp_path / "set")
    assert told == "" and (task.info.kind, task.info.name) == ("classification", "cls")
    assert task.info.class_names == ("collie", "tabby")
    assert [(e.file_name, e.truth) for e in task.splits["train"]] == [
        ("train/cats/1.png", 1),
        ("train/dogs/1.png", 0),
        ("train/dogs/2.png", 1),
    ]
    assert [e.truth for e in task.splits["val"]] == [0]


def test_objects_are_boxes(tmp_path):
    root = boxes(tmp_path / "set")
    check_dataset([root], tmp_path / "out")
    task, told = read(root)
    assert told == "" and (task.info.kind, task.info.name) == ("detection", "dec")
    assert task.info.class_names == ("3", "7") and task.info.class_ids == (3, 7)
    first, second = task.splits["train"]
    assert [(b.label, b.xyxy) for b in first.truth] == [(1, (1, 2, 11, 7.5)), (0, (0, 0, 4, 4))]
    assert second.truth == ()
    (root / "classes.txt").write_text("3 stop\n7 limit\n")
    assert read(root)[0].info.class_names == ("stop", "limit")
    (root / "classes.txt").write_text("3 stop\n")
    assert "classes.txt: no name for class 7; add it" in read(root)[1]


def test_one_file_for_all_splits(tmp_path):
    pictures(tmp_path / "train", "a.png")
    pictures(tmp_path / "test", "a.png")
    rows = [{"file_name": "train/a.png", "label": 0}, {"file_name": "test/a.png", "label": 0}]
    jsonl(tmp_path / "metadata.jsonl", *rows)
    task, _ = read(tmp_path)
    assert {s: [e.file_name for e in examples] for s, examples in task.splits.items()} == {
        "train": ["train/a.png"],
        "test": ["test/a.png"],
    }
    (tmp_path / "classes.txt").write_text("0 cat\n")
    task, _ = read(tmp_path)
    assert task.info.class_names == ("cat",) and task.splits["test"][0].truth == 0


def test_defects_are_reported_row_by_row(tmp_path):
    root = boxes(tmp_path)
    pictures(root / "train", "c.png", "d.png", "e.png")
    rows = [
        objects("a.png", ["x"], [1, 2, 3]),
        objects("c.png", [], [1, 2, 3, 4]),
        {"file_name": "d.png", "objects": None},
        objects("gone.png", []),
        objects("a.png", []),
    ]
    jsonl(root / "train/metadata.jsonl", *rows)
    task, told = read(root)
    for part in (
        "metadata.jsonl:1: objects needs bbox, a list of [x, y, width, height] in pixels",
        "metadata.jsonl:2: objects needs bbox",
        "metadata.jsonl:3: objects needs bbox",
        "metadata.jsonl:4: no picture 'train/gone.png'",
        "metadata.jsonl:5: train/a.png stands twice",
        "2 pictures that no row names: train/b.png, train/e.png",
    ):
        assert part in told, told
    assert len(told.splitlines()) == 6 and len(task.splits["train"]) == 3


REFUSED = {
    "no JSON\n": r"metadata\.jsonl:1: not JSON",
    "[1]\n": r"metadata\.jsonl:1: no JSON object",
    '{"file": "a.png"}\n': r"metadata\.jsonl: no column file_name",
    '{"file_name": "a.png"}\n': r"metadata\.jsonl: only file_name; add label, or objects",
    '{"file_name": "a.png", "age": 3, "text": "x"}\n': r"may be in age \(1 values\), text \(1 values\)",
}


@pytest.mark.parametrize("content", REFUSED)
def test_metadata_that_says_no_label_is_refused(content, tmp_path):
    pictures(tmp_path / "train", "a.png")
    (tmp_path / "train/metadata.jsonl").write_text(content)
    with pytest.raises(ValueError, match=REFUSED[content]):
        read(tmp_path)


def test_a_file_in_the_root_leaves_the_split_to_the_folders_of_each_picture(tmp_path):
    pictures(tmp_path / "images/train", "a.png", "test_b.png")
    pictures(tmp_path / "images/test", "c.png")
    names = ("./images/train/a.png", "images/train/test_b.png", "./images/test/c.png")
    rows = [{"file_name": name, "label": label} for name, label in zip(names, "xyx", strict=True)]
    jsonl(tmp_path / "metadata.jsonl", *rows)
    task, told = read(tmp_path)
    found = {split: sorted(e.image.name for e in examples) for split, examples in task.splits.items()}
    assert told == "" and found == {"train": ["a.png", "test_b.png"], "test": ["c.png"]}
