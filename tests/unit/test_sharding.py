"""Shards: the same bytes for the same input, whole or absent, resumable, verifiable, transcoded on wish."""

import hashlib
import json
import os
import re
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from ufo_large.data import progress, sharding
from ufo_large.data.shard_index import parse_dataset, read_dataset, read_shard_index
from ufo_large.data.shard_writer import write_shard
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.stored_sample import Transcode
from ufo_large.data.synthetic import WorldSizes, write_world
from ufo_large.data.verify import verify_shards
from ufo_large.media.pictures import decode_rgb

SMALL = 0.05  # megabytes a shard: several shards a split


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("painted") / "world"
    write_world(out, 0, WorldSizes(cls=(24, 8, 4), dec=(5, 2, 3), seg=(4, 2, 2)))
    return out


def contents(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_input_gives_the_same_bytes(world, tmp_path, monkeypatch):
    """Also from another place, at another time, with other file times, in processes."""
    monkeypatch.setattr(progress, "START_S", 0.0)
    make_shards([world], tmp_path / "a", ShardingOptions(shard_megabytes=SMALL))
    copy = tmp_path / "copy"
    write_world(copy, 0, WorldSizes(cls=(24, 8, 4), dec=(5, 2, 3), seg=(4, 2, 2)))
    for path in copy.rglob("*.jpg"):
        os.utime(path, (1, 1))
    make_shards([copy], tmp_path / "b", ShardingOptions(shard_megabytes=SMALL, jobs=2))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(read_dataset(tmp_path / "a").split("cls", "train").shards) > 1


def test_index_says_what_the_tar_holds(world, tmp_path):
    dataset = make_shards([world], tmp_path / "out", ShardingOptions())
    entry = dataset.split("dec", "train").shards[0]
    index, tar = (
        read_shard_index(tmp_path / "out" / entry.index),
        (tmp_path / "out" / entry.file).read_bytes(),
    )
    truth = json.loads((world / "track1_train_data/dec/train.json").read_text())
    assert len(index) == entry.count == len(truth["images"])
    for row, image in enumerate(truth["images"]):
        picture = tar[index.image_offsets[row] :][: index.image_sizes[row]]
        text = tar[index.json_offsets[row] :][: index.json_sizes[row]]
        assert picture == (world / "track1_train_data/dec/train" / image["file_name"]).read_bytes()
        assert zlib.crc32(text, zlib.crc32(picture)) == index.crc32s[row]
        boxes = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        assert index.labels_of(row).tolist() == [a["category_id"] - 1 for a in boxes]
        rows = slice(index.label_starts[row], index.label_starts[row + 1])
        wanted = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in boxes)]
        np.testing.assert_allclose(
            index.columns["boxes_xyxy"][rows], np.array(wanted).reshape(-1, 4), rtol=1e-6
        )
        assert (index.heights[row], index.widths[row]) == (image["height"], image["width"])
        assert index.image_ids[row] == image["id"] and index.orders[row] == row


def test_segmentation_histogram_counts_pixels(world, tmp_path):
    split = make_shards([world], tmp_path / "out", ShardingOptions()).split("seg", "val")
    masks = [cv2.imread(str(p), cv2.IMREAD_UNCHANGED)
             for p in (world / "track1_train_data/seg/label/val").iterdir()]  # fmt: skip
    ids = read_dataset(tmp_path / "out").tasks["seg"].class_ids
    assert split.class_histogram == tuple(sum(int((m == i).sum()) for m in masks) for i in ids)


def test_interrupted_run_goes_on(world, tmp_path, monkeypatch):
    options = ShardingOptions(shard_megabytes=SMALL)
    make_shards([world], tmp_path / "whole", options)
    names: list[str] = []

    def dies_after_three(job):
        if len(names) == 3:
            raise KeyboardInterrupt
        names.append(job.name)
        return write_shard(job)

    monkeypatch.setattr(sharding, "write_shard", dies_after_three)
    with pytest.raises(KeyboardInterrupt):
        make_shards([world], tmp_path / "cut", options)
    with pytest.raises(ValueError, match="not a finished shard folder"):
        read_dataset(tmp_path / "cut")
    inspected: list[Path] = []
    monkeypatch.setattr(sharding, "write_shard", lambda job: names.append(job.name) or write_shard(job))
    monkeypatch.setattr("ufo_large.data.checking.inspect_file", lambda path, look: inspected.append(path))
    make_shards([world], tmp_path / "cut", options)
    assert not inspected, "files already checked were checked again"
    assert len(names) == len(set(names)), "a finished shard was written twice"
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_repeated_run_writes_only_what_changed(world, tmp_path, monkeypatch):
    options = ShardingOptions(shard_megabytes=SMALL)
    make_shards([world], tmp_path / "out", options)
    names: list[str] = []
    monkeypatch.setattr(sharding, "write_shard", lambda job: names.append(job.name) or write_shard(job))
    make_shards([world], tmp_path / "out", options)
    assert names == []
    (tmp_path / "out/seg/train-000000.tar").unlink()
    make_shards([world], tmp_path / "out", options)
    assert names == ["seg/train-000000"]
    del names[:]
    make_shards([world / "track1_train_data"], tmp_path / "out", options)
    assert names == [] and "test" not in read_dataset(tmp_path / "out").splits["cls"]
    assert not list((tmp_path / "out").glob("*/test-*"))


def test_full_disk_is_said_and_leaves_nothing_half(world, tmp_path):
    """/dev/full refuses every byte as a full disk does."""
    out = tmp_path / "out"
    (out / "seg").mkdir(parents=True)
    (out / sharding.JOURNAL_FILE).touch()
    partial = out / "seg/train-000000.tar.tmp"
    partial.symlink_to("/dev/full")
    with pytest.raises(ValueError, match="No space left on device; the partial shard was removed") as told:
        make_shards([world], out, ShardingOptions())
    assert f"disk full: {out}/seg/train-000000.tar: " in str(told.value)
    (wanted,) = re.findall(r"tar: ([\d,]+) bytes were wanted, [\d,]+ bytes are free", str(told.value))
    assert int(wanted.replace(",", "")) > 10_000
    assert not partial.is_symlink() and not list(out.glob("**/*.tmp"))
    make_shards([world], out, ShardingOptions())
    make_shards([world], tmp_path / "whole", ShardingOptions())
    assert contents(out) == contents(tmp_path / "whole")


def test_short_side_scales_picture_boxes_and_mask(world, tmp_path):
    options = ShardingOptions(transcode=Transcode(short_side=64, quality=80))
    dataset = make_shards([world], tmp_path / "out", options)
    plain = make_shards([world], tmp_path / "plain", ShardingOptions())
    for task, split in (("dec", "train"), ("seg", "train")):
        small = read_shard_index(tmp_path / "out" / dataset.split(task, split).shards[0].index)
        large = read_shard_index(tmp_path / "plain" / plain.split(task, split).shards[0].index)
        assert (np.minimum(small.heights, small.widths) == 64).all()
        if task == "dec":
            per_box = np.repeat(np.arange(len(large)), np.diff(large.label_starts))
            scale = np.stack([small.widths / large.widths, small.heights / large.heights] * 2, 1)[per_box]
            np.testing.assert_allclose(
                small.columns["boxes_xyxy"], large.columns["boxes_xyxy"] * scale, atol=1e-4
            )
    entry = dataset.split("seg", "train").shards[0]
    index, tar = (
        read_shard_index(tmp_path / "out" / entry.index),
        (tmp_path / "out" / entry.file).read_bytes(),
    )
    mask = tar[index.target_offsets[0] :][: index.target_sizes[0]]
    labels = cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_UNCHANGED)
    picture = decode_rgb(tar[index.image_offsets[0] :][: index.image_sizes[0]])
    assert labels.shape == picture.shape[:2] == (64, index.widths[0])
    assert set(np.unique(labels)) <= set(range(9))
    test = dataset.split("seg", "test")
    assert test.shards == plain.split("seg", "test").shards, "test pictures keep their pixels"


def test_odd_formats_become_jpeg(tmp_path):
    folder = tmp_path / "train_data/cls/train"
    folder.mkdir(parents=True)
    picture = np.full((20, 30, 3), 90, np.uint8)
    cv2.imwrite(str(folder / "a.bmp"), picture)
    cv2.imwrite(str(folder / "b.png"), np.full((20, 30), 128 * 257, np.uint16))
    cv2.imwrite(str(folder / "c.d.png"), picture)
    (folder.parent / "train.txt").write_text("a.bmp 0\nb.png 1\nc.d.png 1\n")
    dataset = make_shards([tmp_path], tmp_path / "out", ShardingOptions())
    entry = dataset.split("cls", "train").shards[0]
    index, tar = (
        read_shard_index(tmp_path / "out" / entry.index),
        (tmp_path / "out" / entry.file).read_bytes(),
    )
    stored = [tar[o : o + s] for o, s in zip(index.image_offsets, index.image_sizes, strict=True)]
    assert [data[:2] for data in stored] == [b"\xff\xd8", b"\xff\xd8", b"\x89P"]
    assert [round(float(decode_rgb(data).mean())) for data in stored] == [90, 128, 90]
    assert index.keys.tolist() == ["000000-a", "000001-b", "000002-c_d"]


def test_out_that_holds_other_things_is_refused(world, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds files that are not shards; choose a new or empty folder"):
        make_shards([world], tmp_path, ShardingOptions())


def test_shards_of_other_tasks_are_not_removed(world, tmp_path):
    make_shards([world], tmp_path / "out", ShardingOptions(jobs=1))
    before = {f: f.read_bytes() for f in (tmp_path / "out").rglob("*") if f.is_file()}
    folders = tmp_path / "folders/train"
    for name in ("a", "b"):
        (folders / name).mkdir(parents=True)
        cv2.imwrite(str(folders / name / "one.jpg"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="holds finished shards of .*dec.*, which are not in this data"):
        make_shards([folders.parent], tmp_path / "out", ShardingOptions(jobs=1))
    assert {f: f.read_bytes() for f in (tmp_path / "out").rglob("*") if f.is_file()} == before


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"shard_megabytes": 0}])
def test_options_are_checked(wrong):
    with pytest.raises(ValueError, match="--"):
        ShardingOptions(**wrong)


# verifying


def test_verify_names_what_is_damaged(world, tmp_path):
    out = tmp_path / "out"
    dataset = make_shards([world], out, ShardingOptions())
    verify_shards(out)
    entry = dataset.split("cls", "train").shards[0]
    index = read_shard_index(out / entry.index)
    _flip(out / entry.file, int(index.image_offsets[7]) + 100)
    os.truncate(out / "dec/train-000000.tar", (out / "dec/train-000000.tar").stat().st_size // 2)
    (out / "seg/val-000000.tar").unlink()
    _flip(out / "seg/train-000000.index.npz", 1000)
    with pytest.raises(ValueError) as stop:
        verify_shards(out)
    message = str(stop.value)
    assert f"cls/train-000000.tar: bytes changed; 1 sample(s) hit: {index.keys[7]};" in message
    assert "dec/train-000000.tar: cut or grown" in message
    assert "seg/val-000000.tar: missing" in message
    assert "seg/train-000000.index.npz: its bytes changed" in message
    assert "4 problems" in message


def test_verify_sees_a_flipped_header(world, tmp_path):
    make_shards([world], tmp_path / "out", ShardingOptions())
    _flip(tmp_path / "out/cls/val-000000.tar", 3)
    with pytest.raises(ValueError, match="no sample is hit, only tar headers or padding"):
        verify_shards(tmp_path / "out")


def _flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


# reading dataset.json


def test_errors_of_read_dataset(world, tmp_path):
    with pytest.raises(ValueError, match="no such folder; write shards with"):
        read_dataset(tmp_path / "none")
    with pytest.raises(ValueError, match=rf"no dataset\.json, so not a finished .* --out {tmp_path}$"):
        read_dataset(tmp_path)
    dataset = make_shards([world], tmp_path / "out", ShardingOptions())
    file = tmp_path / "out/dataset.json"
    with pytest.raises(ValueError, match=r"dataset\.json: a file; give the folder that"):
        read_dataset(file)
    assert parse_dataset(file.read_text(), str(tmp_path / "out")) == dataset
    with pytest.raises(ValueError, match="no task 'det'; it has cls, dec, seg"):
        dataset.split("det", "train")
    with pytest.raises(ValueError, match="no split 'valid'; it has train, val, test"):
        dataset.split("dec", "valid")
    (tmp_path / "out/seg/val-000000.tar").unlink()
    with pytest.raises(ValueError, match=r"are missing: seg/val-000000\.tar"):
        read_dataset(tmp_path / "out")
    with pytest.raises(ValueError, match="format 'ufo-large-shards/0', but this version reads"):
        parse_dataset(file.read_text().replace("shards/2", "shards/0"), "here")
    with pytest.raises(ValueError, match="not JSON"):
        parse_dataset("{", "here")
    with pytest.raises(ValueError, match="damaged index"):
        read_shard_index(b"nothing")


def test_nobody_is_told_to_write_shards_into_their_own_pictures(world, tmp_path):
    pictures = tmp_path / "pictures"
    (pictures / "train/cat").mkdir(parents=True)
    (pictures / "train/cat/a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"make_shards\.py --data {pictures} --out SHARDS, and give that"):
        read_dataset(pictures)
    make_shards([world], tmp_path / "cut", ShardingOptions())
    (tmp_path / "cut/dataset.json").unlink()
    with pytest.raises(ValueError, match=rf"make_shards\.py --data DIR --out {tmp_path / 'cut'}"):
        read_dataset(tmp_path / "cut")


def test_fingerprint_follows_every_byte(world, tmp_path):
    first = make_shards([world], tmp_path / "a", ShardingOptions())
    other = tmp_path / "other"
    write_world(other, 1, WorldSizes(cls=(24, 8, 4), dec=(5, 2, 3), seg=(4, 2, 2)))
    second = make_shards([other], tmp_path / "b", ShardingOptions())
    assert first.fingerprint != second.fingerprint
