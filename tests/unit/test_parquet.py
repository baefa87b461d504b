"""Hugging Face's Parquet: pictures as bytes in a column, classes and boxes beside them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ufo_large.data.datasets.sources import read_sources
from ufo_large.structures import Findings, SourceTask
from ufo_large.testing.datasets import check_dataset

PICTURE = {"_type": "Image"}
ANIMAL = {"names": ["zebra", "cat", "007"], "_type": "ClassLabel"}
SIGN = {"names": ["stop", "limit"], "_type": "ClassLabel"}
BOXES = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "Sequence"}
OBJECTS = {"feature": {"bbox": BOXES, "category": SIGN}, "_type": "Sequence"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("UFO_CACHE", str(folder))
    return folder


def picture(seed: int, form: str = "PNG") -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return {"bytes": stream.getvalue(), "path": f"{seed}.{form.lower()}"}


def write(file: Path, rows: list[dict], features: dict[str, Any] | None = None) -> Path:
    """Write rows as `datasets` does: the features stand in the schema's metadata."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if features:
        said = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": said})
    pq.write_table(table, file)
    return file


def classes(root: Path) -> Path:
    features = {"image": PICTURE, "label": ANIMAL, "text": {"dtype": "string", "_type": "Value"}}
    train = [
        {"image": picture(0), "label": 0, "text": "a"},
        {"image": picture(1, "JPEG"), "label": 1, "text": "b"},
    ]
    write(root / "data/train-00000-of-00002.parquet", train, features)
    more = [{"image": picture(2), "label": 2, "text": "c"}]
    write(root / "data/train-00001-of-00002.parquet", more, features)
    val = [{"image": picture(3, "WEBP"), "label": 0, "text": ""}]
    write(root / "data/validation-00000-of-00001.parquet", val, features)
    test = [{"image": picture(4), "label": -1, "text": ""}]
    write(root / "data/test-00000-of-00001.parquet", test, features)
    return root


def detection(root: Path, as_list: bool = False) -> Path:
    first = {"bbox": [[1.0, 2.0, 10.0, 5.5], [0.0, 0.0, 4.0, 4.0]], "category": [1, 0]}
    none = {"bbox": [], "category": []}
    rows = [{"image": picture(0), "objects": first}, {"image": picture(1), "objects": none}]
    if as_list:
        for row in rows:
            pairs = zip(row["objects"]["bbox"], row["objects"]["category"], strict=True)
            row["objects"] = [{"bbox": box, "category": category} for box, category in pairs]
    write(root / "default/train/0000.parquet", rows, {"image": PICTURE, "objects": OBJECTS})
    return root


def read(root: Path) -> tuple[SourceTask, str]:
    findings = Findings()
    (task,) = read_sources([root], findings)
    return task, "\n".join(item.message for item in findings.items)


def test_classes_and_splits(tmp_path):
    root = classes(tmp_path / "set")
    check_dataset([root], tmp_path / "out")
    task, told = read(root)
    assert told == "" and (task.info.kind, task.info.name) == ("classification", "cls")
    # the order and the names of ClassLabel, as they stand there
    assert task.info.class_names == ("zebra", "cat", "007") and task.info.class_ids == (0, 1, 2)
    assert [(e.file_name, e.truth) for e in task.splits["train"]] == [
        ("data/train-00000-of-00002/000001.png", 0),
        ("data/train-00000-of-00002/000002.jpg", 1),
        ("data/train-00001-of-00002/000001.png", 2),
    ]
    assert [e.truth for e in task.splits["val"]] == [0] and task.splits["val"][0].image.suffix == ".webp"
    # -1 is how `datasets` writes that there is no label
    assert [e.truth for e in task.splits["test"]] == [None]
    assert task.splits["train"][0].image.read_bytes() == picture(0)["bytes"]
    assert task.splits["train"][0].where.endswith("train-00000-of-00002.parquet: row 1")


def test_pictures_are_unpacked_once_and_never_among_the_users_files(tmp_path, cache):
    root = classes(tmp_path / "set")
    before = sorted(p for p in root.rglob("*"))
    image = read(root)[0].splits["train"][0].image
    assert sorted(p for p in root.rglob("*")) == before and image.is_relative_to(cache)
    (tmp_path / "plain").mkdir()
    assert image.parents[2].stat().st_mode == (tmp_path / "plain").stat().st_mode
    stamp = image.stat().st_mtime_ns
    assert read(root)[0].splits["train"][0].image == image and image.stat().st_mtime_ns == stamp
    write(root / "data/train-00000-of-00002.parquet", [{"image": picture(9), "label": 0}], {"label": ANIMAL})
    again = read(root)[0].splits["train"][0].image
    assert again != image and again.read_bytes() == picture(9)["bytes"]
    assert {p.name for p in (cache / "parquet").iterdir()} == {p.parents[2].name for p in (image, again)}


@pytest.mark.parametrize("as_list", [False, True], ids=["struct of lists", "list of structs"])
def test_objects_are_boxes(as_list, tmp_path):
    root = detection(tmp_path / "set", as_list)
    check_dataset([root], tmp_path / "out")
    task, told = read(root)
    assert told == "" and (task.info.kind, task.info.name) == ("detection", "dec")
    assert task.info.class_names == ("stop", "limit")
    first, second = task.splits["train"]
    assert [(b.label, b.xyxy) for b in first.truth] == [(1, (1, 2, 11, 7.5)), (0, (0, 0, 4, 4))]
    assert second.truth == ()


def test_without_features_values_are_the_classes(tmp_path):
    rows = [{"img": picture(i)["bytes"], "label": label, "page": i} for i, label in enumerate((7, 3))]
    write(tmp_path / "train.parquet", rows)
    assert read(tmp_path)[0].info.class_names == ("3", "7")
    (tmp_path / "classes.txt").write_text("3 cat\n7 dog\n")
    task, told = read(tmp_path)
    assert told == "" and task.info.class_names == ("cat", "dog")
    assert [e.truth for e in task.splits["train"]] == [1, 0]


def test_defects_are_reported_row_by_row(tmp_path):
    root = detection(tmp_path)
    rows = [
        {"image": {"bytes": None, "path": "a.png"}, "objects": {"bbox": [], "category": []}},
        {"image": picture(1), "objects": {"bbox": [[1.0, 2.0, 3.0]], "category": [0]}},
        {"image": picture(2), "objects": {"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [5]}},
    ]
    write(root / "default/train/0001.parquet", rows, {"image": PICTURE, "objects": OBJECTS})
    write(root / "default/extra/0000.parquet", rows, {"image": PICTURE, "objects": OBJECTS})
    Image.new("RGB", (4, 4)).save(root / "loose.png")
    task, told = read(root)
    for part in (
        "0001.parquet: row 1: no picture",
        "0001.parquet: row 2: objects needs bbox, a list of [x, y, width, height] in pixels",
        "0001.parquet: row 3: class '5' is none of stop, limit",
        "default/extra/0000.parquet: not read beside train",
        "1 pictures beside the Parquet files are not read: loose.png",
    ):
        assert part in told, told
    assert len(told.splitlines()) == 5 and len(task.splits["train"]) == 4


def refused(root: Path) -> str:
    with pytest.raises(ValueError) as stop:
        read(root)
    return str(stop.value)


def test_what_cannot_be_read_is_refused_with_the_nearest_reason(tmp_path):
    masks = [{"image": picture(0), "annotation": picture(1)}]
    write(tmp_path / "masks/train.parquet", masks)
    assert "train.parquet: pictures in the columns image, annotation" in refused(tmp_path / "masks")
    paths = [{"image": {"bytes": None, "path": "a.png"}, "label": 0}]
    write(tmp_path / "paths/train.parquet", paths, {"image": PICTURE, "label": ANIMAL})
    assert "train.parquet: column image holds no picture" in refused(tmp_path / "paths")
    write(tmp_path / "text/train.parquet", [{"text": "a", "label": 0}])
    assert "train.parquet: Parquet without a column of pictures" in refused(tmp_path / "text")
    write(tmp_path / "several/train.parquet", [{"image": picture(0), "label": [0, 1]}])
    assert "label holds several classes per picture" in refused(tmp_path / "several")
    write(tmp_path / "caption/train.parquet", [{"image": picture(0), "age": 3, "text": "x"}])
    assert "may be in age (1 values), text (1 values)" in refused(tmp_path / "caption")
    for name in ("fine", "coarse"):
        write(tmp_path / f"sets/{name}/train.parquet", [{"image": picture(0), "label": 0}])
    assert "coarse, fine: each is a data set of its own; give one" in refused(tmp_path / "sets")
    write(tmp_path / "unlike/train.parquet", [{"image": picture(0), "label": 0}])
    write(tmp_path / "unlike/val.parquet", [{"photo": picture(0), "label": 0}])
    assert "val.parquet: pictures in photo, but in image of" in refused(tmp_path / "unlike")
    (tmp_path / "lfs").mkdir()
    (tmp_path / "lfs/train.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "train.parquet: not Parquet" in (told := refused(tmp_path / "lfs")) and "git lfs pull" in told


STRANGE = [
    [],
    {"info": []},
    {"info": {"features": []}},
    {"info": {"features": {"label": [], "image": PICTURE}}},
]


@pytest.mark.parametrize("said", STRANGE, ids=json.dumps)
def test_features_of_another_form_say_nothing(said, tmp_path):
    table = pa.Table.from_pylist([{"image": picture(0), "label": 0}, {"image": picture(1), "label": 1}])
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(said)}), tmp_path / "train.parquet"
    )
    task, told = read(tmp_path)
    assert told == "" and task.info.class_names == ("0", "1")


def test_only_pictures_are_taken_for_pictures(tmp_path):
    """Sounds have the same columns; the features tell them apart."""
    features = {"audio": {"_type": "Audio"}, "image": PICTURE, "label": ANIMAL}
    rows = [{"audio": {"bytes": b"RIFF", "path": None}, "image": picture(i), "label": i} for i in range(2)]
    write(tmp_path / "train.parquet", rows, features)
    assert [e.truth for e in read(tmp_path)[0].splits["train"]] == [0, 1]
