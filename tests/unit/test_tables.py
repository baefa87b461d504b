"""Tables of names and classes beside pictures, as Kaggle hands data out."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.datasets.tables import Pictures
from ufo_large.structures import Findings, SourceTask
from ufo_large.testing.datasets import check_dataset


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        seed = [ord(c) for c in str(folder.name) + name]
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
        assert cv2.imwrite(str(folder / name), pixels)


def write(file: Path, *lines: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    return file


def read(root: Path) -> tuple[SourceTask, str]:
    findings = Findings()
    (task,) = read_sources([root], findings)
    return task, "\n".join(item.message for item in findings.items)


def labels(task: SourceTask, split: str = "train") -> dict[str, str | None]:
    names = task.info.class_names
    return {e.file_name: None if e.truth is None else names[e.truth] for e in task.splits[split]}


def kaggle(root: Path) -> Path:
    pictures(root / "train", "7.png", "12.png", "30.png")
    pictures(root / "test", "1.png", "2.png")
    write(root / "train.csv", "id,label", "7,dog", "12,cat", "30,dog")
    write(root / "sample_submission.csv", "id,label", "1,cat", "2,cat")
    return root


def test_kaggles_layout(tmp_path):
    check_dataset([kaggle(tmp_path / "set")], tmp_path / "out")
    task, told = read(tmp_path / "set")
    assert told == "" and task.info.kind == "classification"
    assert task.info.class_names == ("cat", "dog")
    assert labels(task) == {"train/7.png": "dog", "train/12.png": "cat", "train/30.png": "dog"}
    # the submission's classes are invented
    assert labels(task, "test") == {"test/1.png": None, "test/2.png": None}


def test_a_table_per_split(tmp_path):
    pictures(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg")
    write(tmp_path / "train_labels.csv", "name;class", "images/a.jpg;2", "images/b.jpg;10")
    write(tmp_path / "valid.csv", "name;class", "c.jpg;10", "d.jpg;02")
    write(tmp_path / "test.csv", "name", "e.jpg")
    task, told = read(tmp_path)
    assert told == "" and task.info.class_names == ("2", "10") and task.info.class_ids == (2, 10)
    assert labels(task, "val") == {"images/c.jpg": "10", "images/d.jpg": "2"}
    write(tmp_path / "classes.txt", "2 cat", "10 dog")
    assert labels(read(tmp_path)[0], "val") == {"images/c.jpg": "dog", "images/d.jpg": "cat"}
    assert labels(task, "test") == {"images/e.jpg": None}


def test_a_column_or_folders_may_say_the_split(tmp_path):
    pictures(tmp_path / "one/pics", "a.jpg", "b.jpg")
    write(tmp_path / "one/list.tsv", "\tfile\tset\tkind", "0\ta\ttrain\tx", "1\tb\tvalid\tx")
    pictures(tmp_path / "two/train_images", "a.jpg", "b.jpg")
    pictures(tmp_path / "two/val_images", "a.jpg")
    lines = ("train_images/a.jpg,x", "train_images/b.jpg,y", "C:\\data\\val_images\\a.jpg,x")
    write(tmp_path / "two/all.csv", *lines)
    for name in ("one", "two"):
        task, _ = read(tmp_path / name)
        assert list(labels(task, "val").values()) == ["x"], name
    assert labels(task) == {"train_images/a.jpg": "x", "train_images/b.jpg": "y"}


def test_pictures_in_numbered_parts(tmp_path):
    pictures(tmp_path / "lesions_part_1", "a.jpg")
    pictures(tmp_path / "lesions_part_2", "b.jpg")
    write(tmp_path / "meta.csv", "lesion,image,dx", "1,a,nv", "2,b,mel")
    with pytest.raises(ValueError) as stop:
        read(tmp_path)
    wanted = r"meta\.csv: .* lesion \(2 values\), dx \(2 values\); name that column label, or take the others"
    assert re.search(wanted, str(stop.value)), stop.value
    write(tmp_path / "meta.csv", "lesion,image,label", "1,a,nv", "2,b,mel")
    assert labels(read(tmp_path)[0]) == {"lesions_part_1/a.jpg": "nv", "lesions_part_2/b.jpg": "mel"}


def test_a_table_that_repeats_the_class_folders_changes_nothing(tmp_path):
    """test_tube begins like a split, but is a class."""
    for name in ("beaker", "test_tube"):
        pictures(tmp_path / name, f"{name}.jpg")
    write(tmp_path / "all.csv", "file,class", "beaker.jpg,beaker", "test_tube.jpg,test_tube")
    task, told = read(tmp_path)
    assert told == "" and labels(task) == {
        "beaker/beaker.jpg": "beaker",
        "test_tube/test_tube.jpg": "test_tube",
    }


def test_numbers_that_name_pictures_and_classes(tmp_path):
    pictures(tmp_path / "images", "1.jpg", "2.jpg", "3.jpg")
    write(tmp_path / "labels.csv", "label,id", "1,3", "2,2", "1,1")
    assert labels(read(tmp_path)[0]) == {"images/3.jpg": "1", "images/2.jpg": "2", "images/1.jpg": "1"}


def test_one_column_of_0_and_1_per_class(tmp_path):
    """As in Plant Pathology (0, 1) and ISIC (0.0, 1.0)."""
    pictures(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    write(tmp_path / "train.csv", "image,healthy,rust,scab", "a,0,0,1", "b,1,0,0", "c,0,1,0")
    write(tmp_path / "test.csv", "image", "d")
    check_dataset([tmp_path], tmp_path.parent / "out_one_hot")
    task, told = read(tmp_path)
    assert told == "" and task.info.class_names == ("healthy", "rust", "scab")
    assert labels(task) == {"images/a.jpg": "scab", "images/b.jpg": "healthy", "images/c.jpg": "rust"}
    assert labels(task, "test") == {"images/d.jpg": None}
    write(tmp_path / "train.csv", "image,split,NV,MEL", "a,train,0.0,1.0", "b,train,1.0,0.0", "c,val,1.0,0.0")
    assert labels(read(tmp_path)[0], "val") == {"images/c.jpg": "NV"}


def test_a_column_named_label_wins_over_columns_of_0_and_1(tmp_path):
    pictures(tmp_path / "images", "a.jpg", "b.jpg")
    write(tmp_path / "train.csv", "image,male,female,label", "a,0,1,x", "b,1,0,y")
    assert labels(read(tmp_path)[0]) == {"images/a.jpg": "x", "images/b.jpg": "y"}


REFUSED = {
    ("id,class,xmin,ymin,xmax,ymax", "a,x,1,1,5,5", "b,y,1,1,5,5"): r"boxes in a table \(column xmin\)",
    ("id", "a", "b"): "names pictures, but no column says their class; add a column label",
    ("id,age", "a,1.0", "b,1.25"): r"numbers such as 1\.25 are no classes",
    ("id,age,sex", "a,1,m", "b,2,w"): r"may be in age \(2 values\), sex \(2 values\); name that column label",
    ("id,label,class", "a,1,m", "b,2,w"): r"may be in label \(2 values\), class \(2 values\)",
    ("id,rust,scab", "a,1,1", "b,0,1"): r"2 classes of a \(rust, scab\); .* one class per picture is read",
    ("id,rust,scab", "a,1,0", "b,0,0"): r"0 classes of b \(none\); .* one class per picture is read",
    ("id,rust,scab", "a,0.9,0.1", "b,0.2,0.8"): r"may be in rust \(2 values\), scab \(2 values\)",
    ("id,age,rust,scab", "a,7,1,0", "b,9,0,1"): r"may be in age \(2 values\), rust",
    ("id,file,label", "a,a,1", "b,b,2"): "the columns id, file name the same pictures; take all but one out",
}


@pytest.mark.parametrize("lines", REFUSED, ids=lambda lines: lines[0])
def test_a_table_that_may_be_read_in_two_ways_is_refused_with_the_candidates(lines, tmp_path):
    pictures(tmp_path / "images", "a.jpg", "b.jpg")
    write(tmp_path / "labels.csv", *lines)
    with pytest.raises(ValueError, match=r"labels\.csv:.* " + REFUSED[lines]):
        read(tmp_path)


def test_two_tables_of_one_split_are_refused(tmp_path):
    pictures(tmp_path / "images", "a.jpg", "b.jpg")
    for name in ("labels", "more"):
        write(tmp_path / f"{name}.csv", "id,label", "a,1", "b,2")
    with pytest.raises(ValueError, match=r"labels\.csv, .*more\.csv: each names pictures of train; keep one"):
        read(tmp_path)


def test_a_different_value_in_every_row_is_no_class(tmp_path):
    names = [f"{i}.jpg" for i in range(30)]
    pictures(tmp_path / "images", *names)
    write(tmp_path / "labels.csv", "name,label", *(f"{name},v{name}" for name in names))
    with pytest.raises(ValueError, match="30 different values in 30 rows are no classes"):
        read(tmp_path)


def test_defects_are_reported_row_by_row(tmp_path):
    pictures(tmp_path / "images/x", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    pictures(tmp_path / "images/images", "a.jpg")
    rows = ("x/a.jpg,1", "b.jpg,2", "gone.jpg,1", "b.jpg,1", "c.jpg,", "a.jpg,2")
    write(tmp_path / "train.csv", "name,label", *rows)
    write(tmp_path / "val.csv", "name,label", "c.jpg,3")
    task, told = read(tmp_path)
    for part in (
        "train.csv:4: no picture 'gone.jpg' in",
        "train.csv:5: b.jpg stands twice",
        "train.csv:6: no class",
        "train.csv:7: 'a.jpg' may be images/images/a.jpg, images/x/a.jpg; write the folder too",
        "val.csv:2: class '3' does not exist in train",
        "1 pictures that no row names: images/x/d.jpg; add rows, or move them out",
    ):
        assert part in told, told
    assert len(told.splitlines()) == 6 and len(task.splits["train"]) == 2


def test_pictures_of_one_name_are_told_apart_by_their_folder_and_no_folder_is_hidden(tmp_path):
    for place in ("a", "b", ".thumbs/a"):
        pictures(tmp_path / "images" / place, "1.png", "2.png")
    write(tmp_path / "train.csv", "path,label", *(f"/old/{p}/{n}.png,{p}{n}" for p in "ab" for n in (1, 2)))
    found = Pictures(tmp_path / "images")
    assert [str(p.relative_to(tmp_path)) for p in found.find("/old/b/2.png")] == ["images/b/2.png"]
    assert found.find("b/2") == found.find("/old/b/2.png") and len(found.find("2.png")) == 2
    assert len(found.paths) == 4 and found.find("c/9.png") == []
