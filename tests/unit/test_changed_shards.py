"""Shards whose bytes changed after they were written: nothing of them is trained on or scored in silence."""

import itertools
import json
import os
import shutil

import cv2
import numpy as np
import pytest

from ufo_large.data.batching import Tokens
from ufo_large.data.errors import DataError
from ufo_large.data.evaluation_batches import evaluation_batches
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.shard_index import read_dataset
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.shards import ShardReplaced, ShardSet
from ufo_large.data.verify import verify_shards
from ufo_large.evaluation.ground_truth import truth_of_shards
from ufo_large.structures import BadSample

COUNT = 6
CHANGED = "its bytes are not those that were written"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One shard each of classification and segmentation; all pictures of a task have equally many bytes."""
    root = tmp_path_factory.mktemp("whole") / "train_data"
    for folder in ("cls/train", "seg/images/train", "seg/label/train"):
        (root / folder).mkdir(parents=True)
    for i in range(COUNT):
        picture = np.full((40, 40, 3), 20 * i, np.uint8)
        for folder in ("cls/train", "seg/images/train"):
            cv2.imwrite(str(root / folder / f"{i}.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 0])
        cv2.imwrite(str(root / f"seg/label/train/{i}.png"), np.eye(40, k=i, dtype=np.uint8))
    (root / "cls/train.txt").write_text("".join(f"{i}.png {i % 2}\n" for i in range(COUNT)))
    make_shards([root], root.parent / "shards", ShardingOptions())
    return root.parent / "shards"


@pytest.fixture
def shards(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "shards")


def spans(reader, index):
    """Return (offset, size) of image, JSON and target in the shard."""
    rows = reader._rows
    return [
        (int(rows[f"{m}_offsets"][index]), int(rows[f"{m}_sizes"][index]))
        for m in ("image", "json", "target")
    ]


def flip(part):
    def damage(content, reader):
        offset, size = spans(reader, 2)[part]
        content[offset + size // 2] ^= 1

    return damage


def exchange(content, reader):
    """The pictures of two samples change places; both decode."""
    (first, size), (second, _) = spans(reader, 1)[0], spans(reader, 4)[0]
    pair = content[first : first + size], content[second : second + size]
    content[second : second + size], content[first : first + size] = pair


def damage(shards, task, change):
    reader = ShardSet.open(shards).split(task, "train")
    path = shards / task / "train-000000.tar"
    content = bytearray(path.read_bytes())
    change(content, reader)
    path.write_bytes(content)
    return ShardSet.open(shards)


CASES = {
    "a bit of a picture": ("cls", flip(0), {2}),
    "a bit of an annotation": ("cls", flip(1), {2}),
    "a bit of a mask's picture": ("seg", flip(0), {2}),
    "a bit of a mask": ("seg", flip(2), {2}),
    "two pictures exchanged": ("cls", exchange, {1, 4}),
    "two pictures of masks exchanged": ("seg", exchange, {1, 4}),
}


@pytest.mark.filterwarnings("ignore:skipped a broken sample")
@pytest.mark.parametrize("name", CASES)
def test_changed_samples_are_counted_and_not_trained_on(shards, name):
    task, change, bad = CASES[name]
    opened = damage(shards, task, change)
    reader = opened.split(task, "train")
    stream = LoaderConfig(micro_batch=2, image_size=(32, 32), workers=0).build(
        reader, opened.task(task), 0, 1, 0, Tokens(patch=8, width=48)
    )
    shown = {s.order for batch in itertools.islice(stream, COUNT) for s in batch.samples}
    assert shown == set(range(COUNT)) - bad
    assert set(stream.state_dict()["bad"]) == {str(index) for index in bad}
    assert all(f"train-000000.tar: {CHANGED}" in told for told in stream.state_dict()["bad"].values())


@pytest.mark.parametrize("name", CASES)
def test_changed_samples_are_not_scored(shards, name):
    task, change, bad = CASES[name]
    opened = damage(shards, task, change)
    reader, first = opened.split(task, "train"), min(bad)
    told = rf"^{first}\.png in \S+{task}/train-000000\.tar: {CHANGED}.*verify_shards"
    with pytest.raises(DataError, match=told):
        list(
            evaluation_batches(
                reader, opened.task(task), image_size=(32, 32), micro_batch=2, rank=0, world_size=1
            )
        )
    with pytest.raises(DataError, match=told):
        truth_of_shards(opened, "train")[task].read(first)


@pytest.mark.parametrize("name", CASES)
def test_verify_shards_lists_the_same(shards, name):
    task, change, bad = CASES[name]
    damage(shards, task, change)
    listed = ", ".join(f"00000{index}-{index}" for index in sorted(bad))
    with pytest.raises(ValueError, match=rf"{len(bad)} sample\(s\) hit: {listed}"):
        verify_shards(shards)


def test_a_zeroed_shard_stops(shards):
    def zero(content, _):
        content[:] = bytes(len(content))

    opened = damage(shards, "cls", zero)
    reader = opened.split("cls", "train")
    with pytest.raises(BadSample, match=CHANGED):
        reader.read(0)
    stream = LoaderConfig(micro_batch=2, image_size=(32, 32), workers=0).build(
        reader, opened.task("cls"), 0, 1, 0, Tokens(patch=8, width=48)
    )
    with pytest.raises(DataError, match=rf"task 'cls': 20 samples in a row are unreadable.*{CHANGED}"):
        next(stream)


def test_a_cut_shard_is_refused_before_it_is_read(shards):
    path = shards / "cls/train-000000.tar"
    os.truncate(path, path.stat().st_size - 512)
    with pytest.raises(ShardReplaced, match=r"cls/train-000000\.tar: \d+ bytes, \d+ expected"):
        ShardSet.open(shards).split("cls", "train")


def exchange_names(body):
    names = body["tasks"][0]["class_names"]
    names[0], names[1] = names[1], names[0]


def change_count(body):
    body["splits"]["cls"]["train"]["count"] += 1


@pytest.mark.parametrize("change", [exchange_names, change_count])
def test_an_edited_dataset_json_is_refused(shards, change):
    file = shards / "dataset.json"
    fingerprint = read_dataset(shards).fingerprint
    body = json.loads(file.read_text())
    change(body)
    file.write_text(json.dumps(body))
    told = (
        rf"dataset\.json: its content has the fingerprint .*not {fingerprint[:12]}.*: class names, counts or"
    )
    with pytest.raises(ValueError, match=told + ".*; copy it again, or run make_shards.py again"):
        ShardSet.open(shards)
