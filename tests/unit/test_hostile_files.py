"""Files of strangers: what is wrong with one is told with its name and remedy, never by a bare exception."""

import io
import json
import zipfile

import numpy as np
import pytest

from ufo_large.data.datasets.coco import CocoReader, load_coco, read_categories
from ufo_large.data.datasets.fixed import FORMAT as FIXED_FORMAT
from ufo_large.data.datasets.fixed import read_fixed_folder
from ufo_large.data.shard_index import FORMAT, fingerprint_of, parse_dataset, read_shard_index
from ufo_large.distributed import ds_config
from ufo_large.evaluation.ground_truth import GroundTruth
from ufo_large.evaluation.submission_reader import read_submission
from ufo_large.structures import Findings, SampleInfo, TaskInfo

HUGE = 10**400
BIG = 10**19
DEEP = "[" * 900 + "]" * 900
RING = [[0, 0], [4, 0], [4, 4]]


def truth(name, kind):
    info = TaskInfo(name=name, kind=kind, class_names=("a", "b"), class_ids=(0, 2))
    sample = SampleInfo(key="s", file_name="s.jpg", height=4, width=6, image_id=1, order=0)
    return GroundTruth(info=info, samples=(sample,), read=lambda i: None)


TRUTHS = {
    "cls": truth("cls", "classification"),
    "dec": truth("dec", "detection"),
    "seg": truth("seg", "segmentation"),
}
BOX = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}
GOOD = {"cls": [{"s.jpg": 2}], "dec": [BOX], "seg": [{"s.png": {"2": [RING]}}]}
SUBMISSIONS = {
    "400-digit box": GOOD | {"dec": [BOX | {"bbox": [HUGE, 2, 3, 4]}]},
    "400-digit score": GOOD | {"dec": [BOX | {"score": HUGE}]},
    "400-digit class": GOOD | {"cls": [{"s.jpg": HUGE}]},
    "a category beyond int64": GOOD | {"dec": [BOX | {"category_id": BIG}]},
    "a list as image": GOOD | {"dec": [BOX | {"image_id": [1]}]},
    "a list as category": GOOD | {"dec": [BOX | {"category_id": [2]}]},
    "true as a number": GOOD | {"dec": [BOX | {"bbox": [True, 2, 3, 4]}]},
    "points of two lengths": GOOD | {"seg": [{"s.png": {"2": [[[1, 2]], [[]]]}}]},
    "an empty point": GOOD | {"seg": [{"s.png": {"2": [[[]]]}}]},
    "only empty points": GOOD | {"seg": [{"s.png": {"2": [[[], []], [[]]]}}]},
    "text as a coordinate": GOOD | {"seg": [{"s.png": {"2": [[["1", "2"], [4, 0], [4, 4]]]}}]},
    "true as a coordinate": GOOD | {"seg": [{"s.png": {"2": [[[True, 2], [4, 0], [4, 4]]]}}]},
    "null as a coordinate": GOOD | {"seg": [{"s.png": {"2": [[[None, 2], [4, 0], [4, 4]]]}}]},
    "a number as a point": GOOD | {"seg": [{"s.png": {"2": [[1, 2, 3]]}}]},
    "a 400-digit coordinate": GOOD | {"seg": [{"s.png": {"2": [[[HUGE, 1], [4, 0], [4, 4]]]}}]},
    "a long class": GOOD | {"seg": [{"s.png": {"9" * 5000: [RING]}}]},
    "no object": [],
}


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_hostile_submissions(tmp_path, name):
    file = tmp_path / "submission.json"
    file.write_text(json.dumps(SUBMISSIONS[name]))
    with pytest.raises(ValueError) as caught:
        read_submission(file, TRUTHS)
    assert str(file) in str(caught.value) and "write" in str(caught.value)


@pytest.mark.parametrize("task", TRUTHS)
def test_deep_submissions(tmp_path, task):
    file = tmp_path / "submission.json"
    file.write_text(json.dumps(GOOD | {task: "DEEP"}).replace('"DEEP"', DEEP))
    with pytest.raises(ValueError, match="nested deeper") as caught:
        read_submission(file, TRUTHS)
    assert str(file) in str(caught.value)


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 8, "width": 8}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}],
    "categories": [{"id": 1, "name": "car"}],
}


def changed(part, **values):
    return COCO | {part: [COCO[part][0] | values]}


COCOS = {
    "400-digit box": changed("annotations", bbox=[HUGE, 1, 2, 2]),
    "text as box": changed("annotations", bbox=["1", 1, 2, 2]),
    "true in a box": changed("annotations", bbox=[True, 1, 2, 2]),
    "a list as image_id": changed("annotations", image_id=[1]),
    "an object as category_id": changed("annotations", category_id={"a": 1}),
    "text as area": changed("annotations", area="large"),
    "a list as area": changed("annotations", area=[1]),
    "NaN as area": changed("annotations", area=float("nan")),
    "a list as image": changed("images", id=[1]),
    "true as image": changed("images", id=True),
    "a zero byte in a name": changed("images", file_name="a\0.jpg"),
    "a list as category": changed("categories", id=[1]),
    "true as category": changed("categories", id=True),
    "numbers for images": COCO | {"images": [1]},
    "a list": [],
}


@pytest.mark.parametrize("name", COCOS)
def test_hostile_coco_files_are_reported(tmp_path, name):
    file = tmp_path / "train.json"
    file.write_text(json.dumps(COCOS[name]))
    (tmp_path / "a.jpg").touch()
    findings = Findings()
    report = findings.at("dec", "train")
    coco = load_coco(file, report)
    labels = {number: i for i, number in enumerate(read_categories({file: coco}, report))}
    CocoReader(file, tmp_path, labels, report).read(coco)
    assert findings.items and all(
        str(file) in item.message and ";" in item.message for item in findings.items
    )


def test_a_list_as_annotation_id_is_no_exception(tmp_path):
    findings = Findings()
    file = tmp_path / "train.json"
    coco = changed("annotations", id=[1])
    (tmp_path / "a.jpg").touch()
    (example,) = CocoReader(file, tmp_path, {1: 0}, findings.at("dec", "train")).read(coco)
    assert len(example.truth) == 1


DIGITS = "0" * 64
SHARD = {
    "file": "cls/train-000000.tar",
    "index": "cls/train-000000.index.npz",
    "sha256": DIGITS,
    "index_sha256": DIGITS,
    "bytes": 1,
    "count": 1,
    "inputs": DIGITS,
    "class_histogram": [1],
}
SPLIT = {"count": 1, "labeled": True, "class_histogram": [1], "shards": [SHARD]}
TASK = {"name": "cls", "kind": "classification", "class_names": ["a"], "class_ids": [0]}
DATASET = {"format": FORMAT, "fingerprint": "f", "tasks": [TASK], "splits": {"cls": {"train": SPLIT}}}


def signed(body):
    """Give a dataset.json the fingerprint of its own content."""
    return json.dumps(body | {"fingerprint": fingerprint_of(body)})


def test_the_dataset_that_the_others_damage_is_read():
    assert parse_dataset(signed(DATASET), "R").split("cls", "train").shards[0].bytes == 1


def with_shard(**values):
    return DATASET | {"splits": {"cls": {"train": SPLIT | {"shards": [SHARD | values]}}}}


DATASETS = {
    "splits as a list": DATASET | {"splits": []},
    "a split as a number": DATASET | {"splits": {"cls": {"train": 3}}},
    "a split's count as text": DATASET | {"splits": {"cls": {"train": SPLIT | {"count": "1"}}}},
    "a split of an unknown task": DATASET | {"splits": {"other": {"train": SPLIT}}},
    "no split of a task": DATASET | {"splits": {}},
    "tasks as numbers": DATASET | {"tasks": [1]},
    "a list as task": DATASET | {"tasks": [TASK | {"name": ["cls"]}]},
    "a number as kind": DATASET | {"tasks": [TASK | {"kind": [1]}]},
    "lists as ids": DATASET | {"tasks": [TASK | {"class_ids": [[0]]}]},
    "true as id": DATASET | {"tasks": [TASK | {"class_ids": [True]}]},
    "numbers as names": DATASET | {"tasks": [TASK | {"class_names": [1]}]},
    "text as bytes": with_shard(bytes="1"),
    "a list as file": with_shard(file=["a"]),
    "a number as sha256": with_shard(sha256=1),
    "an unknown field": with_shard(other=1),
    "an image count of 400 digits": with_shard(count=HUGE),
}


@pytest.mark.parametrize("name", DATASETS)
def test_hostile_datasets(name):
    with pytest.raises(ValueError, match=r"^R/dataset\.json: .*make_shards\.py again"):
        parse_dataset(signed(DATASETS[name]), "R")


@pytest.mark.parametrize(
    ("fingerprint", "told"), [([], "`fingerprint` is no text"), ("f", "not f... as it says: class names, co")]
)
def test_a_fingerprint_of_something_else(fingerprint, told):
    with pytest.raises(ValueError, match=rf"^R/dataset\.json: .*{told}.*make_shards\.py again"):
        parse_dataset(json.dumps(DATASET | {"fingerprint": fingerprint}), "R")


@pytest.mark.parametrize("content", [b"\xff\xfe{}", DEEP.encode(), b"", b'{"format": 1, "format": 2}'])
def test_datasets_that_are_no_json(content):
    with pytest.raises(ValueError, match=r"^R/dataset\.json: .*make_shards\.py again"):
        parse_dataset(content, "R")


def zipped(flags=0, method=0, **members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    data = bytearray(buffer.getvalue())
    for mark, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = data.find(mark)
        data[at + place] |= flags
        data[at + place + 2] |= method
    return bytes(data)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


INDEXES = {
    "empty": b"",
    "no zip": b"hello",
    "encrypted": zipped(flags=1, keys=npy(np.zeros(3))),
    "patched": zipped(flags=32, keys=npy(np.zeros(3))),
    "of an unknown compression": zipped(method=99, keys=npy(np.zeros(3))),
    "a member that is no array": zipped(keys=b"hello"),
    "a cut array": zipped(keys=npy(np.zeros(300))[:200]),
    "a shape too large": zipped(keys=npy(np.zeros(3)).replace(b"(3,)", b"(9999999999999,)")),
    "a header that is no literal": zipped(keys=npy(np.zeros(3)).replace(b"(3,)", b"(3,(")),
    "objects": zipped(keys=npy(np.array([{}], object))),
    "only keys": zipped(keys=npy(np.zeros(3))),
}


@pytest.mark.parametrize("name", INDEXES)
def test_hostile_indexes(tmp_path, name):
    file = tmp_path / "train-000000.index.npz"
    file.write_bytes(INDEXES[name])
    with pytest.raises(ValueError, match="make_shards.py again") as caught:
        read_shard_index(file)
    assert str(file) in str(caught.value)


FIXED = {"format": FIXED_FORMAT, "tasks": [{"info": TASK, "splits": {"train": []}}]}


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        DEEP,
        json.dumps(FIXED | {"tasks": 3}),
        json.dumps(FIXED | {"tasks": [3]}),
        json.dumps(FIXED | {"tasks": [{"info": TASK, "splits": {"train": [3]}}]}),
        json.dumps(FIXED | {"tasks": [{"info": TASK, "splits": []}]}),
        json.dumps(FIXED | {"tasks": [{"info": TASK}]}),
    ],
)
def test_hostile_fixed_indexes(tmp_path, content):
    (tmp_path / "fixed.json").write_text(content)
    with pytest.raises(ValueError, match=r"fixed\.json.*check_data\.py --fix"):
        read_fixed_folder(tmp_path)


@pytest.mark.parametrize("content", [b"[]", b"3", b"\xff", b'{"a": NaN}', DEEP.encode()])
def test_hostile_deepspeed_files(tmp_path, content):
    file = tmp_path / "zero3.json"
    file.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        ds_config.read(file)
    assert str(file) in str(caught.value)
