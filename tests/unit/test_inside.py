"""Paths that a file names stay below their folder, whoever wrote the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ufo_large.config import outside, require_inside
from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.shard_index import read_dataset
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.shards import ShardSet
from ufo_large.distributed.checkpoint import INDEX, load_weights
from ufo_large.structures import Findings, TaskInfo
from ufo_large.testing.simulated_run import invented_examples
from ufo_large.testing.tiny_shards import tiny_shards, write_tiny_data
from ufo_large.tracking import save_examples
from ufo_large.tracking.report import write_report

OUTSIDE = ("/etc/passwd", "../a.jpg", "a/../../b.jpg", "a/..", "", ".", "..")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return tiny_shards(tmp_path_factory.mktemp("tiny"), count=4)


def rewrite(file: Path, change: Callable[[dict], None]) -> None:
    body = json.loads(file.read_text())
    change(body)
    file.write_text(json.dumps(body))


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_leave_their_folder_are_refused(name, tmp_path):
    assert outside(name)
    with pytest.raises(ValueError, match=r"list\.json: .*write .*relative to"):
        require_inside(tmp_path, name, "list.json")


def test_what_is_no_text_is_no_name(tmp_path):
    with pytest.raises(ValueError, match=r"list\.json: 7 .*no text"):
        require_inside(tmp_path, 7, "list.json")


@pytest.mark.parametrize(
    "name", ["a.jpg", "a/b.jpg", "./a.jpg", "a..b/..c.jpg", "...", "my car.jpg", "-1.jpg"]
)
def test_names_below_the_folder_stand(name, tmp_path):
    assert not outside(name)
    assert require_inside(tmp_path, name, "list.json", links=False) == tmp_path / name


def test_links_lead_out_only_where_they_may(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "secret.jpg").write_text("")
    (tmp_path / "real/a.jpg").symlink_to("../secret.jpg")
    (tmp_path / "root").symlink_to("real")
    root = tmp_path / "root"
    assert require_inside(root, "b.jpg", "list.json", links=False) == root / "b.jpg"
    assert require_inside(root, "a.jpg", "list.json") == root / "a.jpg"
    with pytest.raises(ValueError, match=r"list\.json: 'a\.jpg' .*link.*secret\.jpg"):
        require_inside(root, "a.jpg", "list.json", links=False)


# dataset.json


@pytest.mark.parametrize("field", ["sha256", "index_sha256", "inputs"])
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_checksum_is_no_path(shards, tmp_path, kind, field):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    copy = shutil.copytree(shards, tmp_path / "copy")
    rewrite(
        copy / "dataset.json",
        lambda body: body["splits"]["cls"]["train"]["shards"][0].update({field: str(victim)}),
    )
    location = str(copy) if kind == "folder" else f"pipe:cat {copy}/{{}}"
    with pytest.raises(ValueError, match=rf"dataset\.json: .*{field}.*victim.*64 hex digits.*make_shards"):
        ShardSet.open(location, cache=tmp_path / "cache").split("cls", "train").read(0)
    assert victim.read_text() == "precious" and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("field", ["file", "index"])
@pytest.mark.parametrize(
    "name", ["../outside.tar", "/etc/passwd", "cls/../../x.tar", "--help", "cls/$(id).tar", "cls/-r.tar"]
)
def test_shards_lie_below_dataset_json_and_are_no_commands(shards, tmp_path, field, name):
    copy = shutil.copytree(shards, tmp_path / "copy")
    (tmp_path / "outside.tar").write_bytes(b"")
    rewrite(
        copy / "dataset.json",
        lambda body: body["splits"]["cls"]["train"]["shards"][0].update({field: name}),
    )
    with pytest.raises(ValueError) as refused:
        ShardSet.open(copy)
    assert "dataset.json: " in str(refused.value) and repr(name) in str(refused.value)
    assert "make_shards.py again" in str(refused.value)


def test_linked_shards_are_read(shards, tmp_path):
    """As where a folder of shards is spread over disks."""
    copy = shutil.copytree(shards, tmp_path / "copy")
    shutil.move(copy / "cls", tmp_path / "other-disk")
    (copy / "cls").symlink_to(tmp_path / "other-disk")
    (tmp_path / "link").symlink_to(copy)
    assert ShardSet.open(tmp_path / "link").split("cls", "train").read(0).image


def test_a_foreign_journal_names_no_shard(shards, tmp_path):
    """Sharding goes on from written.jsonl; a line with paths elsewhere is none of its own."""
    data, out = shards.parent / "train_data", tmp_path / "out"
    make_shards([data], out, ShardingOptions(shard_megabytes=0.02))
    entry = json.loads((out / "dataset.json").read_text())["splits"]["cls"]["train"]["shards"][0]
    (tmp_path / "elsewhere.npz").write_text("")
    (out / "dataset.json").unlink()
    (out / "written.jsonl").write_text(json.dumps({**entry, "index": "../elsewhere.npz"}) + "\n")
    make_shards([data], out, ShardingOptions(shard_megabytes=0.02))
    assert read_dataset(out).split("cls", "train").shards[0].index == entry["index"]


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "", "a.b"])
def test_a_task_is_named_by_a_word(name):
    """Shards, pictures of the report and exports lie in files of that name."""
    with pytest.raises(ValueError, match="task .*letters, digits"):
        TaskInfo(name=name, kind="classification", class_names=("a",), class_ids=(0,))


def test_a_fixed_index_has_the_splits_there_are(tmp_path):
    info = {"name": "cls", "kind": "classification", "class_names": ["a"], "class_ids": [0]}
    body = {"format": "ufo-large-fixed/2"}
    body["tasks"] = [{"info": info, "splits": {"../../train": []}}]
    (tmp_path / "fixed.json").write_text(json.dumps(body))
    with pytest.raises(ValueError, match=r"fixed\.json: .*'\.\./\.\./train'.*train, val, test"):
        read_sources([tmp_path], Findings())


# folders of users


def outside_picture(root: Path) -> Path:
    """A picture beside the data set, and its path as a hostile list would write it."""
    secret = root.parent / "secret.png"
    cv2.imwrite(str(secret), np.zeros((30, 40, 3), np.uint8))
    return secret


def images_read(root: Path, findings: Findings) -> list[Path]:
    tasks = read_sources([root], findings)
    return [e.image for task in tasks for split in task.splits.values() for e in split]


@pytest.mark.parametrize("absolute", [True, False])
def test_coco_names_pictures_of_its_own_folder(tmp_path, absolute):
    root = write_tiny_data(tmp_path / "data", count=4)
    secret = outside_picture(root)
    name = str(secret) if absolute else "../../../secret.png"
    assert (root / "dec/train" / name).is_file()
    rewrite(root / "dec/train.json", lambda body: body["images"][0].update({"file_name": name}))
    findings = Findings()
    images = images_read(root, findings)
    (told,) = (f.message for f in findings.items)
    assert "train.json: image" in told and repr(name) in told and "relative to" in told
    assert not [p for p in images if p.resolve() == secret] and len(images) == 4 + 3 + 4


def test_coco_names_pictures_in_subfolders_and_behind_links(tmp_path):
    root = write_tiny_data(tmp_path / "data", count=4)
    shutil.move(root / "dec/train", tmp_path / "disk")
    (root / "dec/train/sub").mkdir(parents=True)
    for number, picture in enumerate(sorted((tmp_path / "disk").iterdir())):
        place = root / "dec/train" / ("sub" if number else "")
        (place / picture.name).symlink_to(picture)

    def into_sub(body: dict) -> None:
        for image in body["images"][1:]:
            image["file_name"] = f"sub/{image['file_name']}"

    rewrite(root / "dec/train.json", into_sub)
    (tmp_path / "link").symlink_to(root)
    findings = Findings()
    assert len(images_read(tmp_path / "link", findings)) == 12 and not findings.items


@pytest.mark.parametrize("absolute", [True, False])
def test_lists_name_pictures_of_their_own_folders(tmp_path, absolute):
    """cls/train.txt and dec/test.txt of the contest, VOC's and CamVid's lists."""
    root = write_tiny_data(tmp_path / "contest", count=4)
    secret = outside_picture(root)
    shutil.copytree(root / "dec/train", root / "dec/test")
    voc, camvid = tmp_path / "voc", tmp_path / "camvid"
    for folder in (voc / "Annotations", voc / "ImageSets/Main", camvid / "images", camvid / "labels"):
        folder.mkdir(parents=True)
    shutil.copytree(root / "dec/train", voc / "JPEGImages")
    (camvid / "label_colors.txt").write_text("0 0 0 road\n")
    (camvid / "labels/street_L.png").touch()  # what the layout is known by
    lists = {
        root / "cls/train.txt": ("cls/train", "{} 0\n"),
        root / "dec/test.txt": ("dec/test", "{}\n"),
        voc / "ImageSets/Main/train.txt": ("JPEGImages", "{}\n"),
        camvid / "train.txt": ("images", "{}\n"),
    }
    for file, (_, line) in lists.items():
        up = "../../../secret.png" if file.is_relative_to(root) else "../../secret.png"
        name = str(secret) if absolute else up
        file.write_text(line.format(name) + line.format(name.removesuffix(".png")))
    for folder in (root, voc, camvid):
        findings = Findings()
        assert secret not in [p.resolve() for p in images_read(folder, findings)]
        assert any("secret" in f.message for f in findings.items), folder


# folders of runs


def test_the_report_shows_pictures_of_its_own_folder(tmp_path):
    (tmp_path / "config.json").write_text('{"secret": 1}')
    save_examples(tmp_path, invented_examples("cls", np.random.default_rng(0)))
    file = tmp_path / "examples/examples.json"
    cards = json.loads(file.read_text())
    file.write_text(json.dumps([{**cards[0], "picture": "../config.json"}, *cards[1:]]))
    with pytest.raises(ValueError, match=r"examples\.json: '\.\./config\.json'"):
        write_report(tmp_path)
    picture = tmp_path / "examples" / cards[0]["picture"]
    picture.unlink()
    picture.symlink_to("../config.json")
    file.write_text(json.dumps(cards))
    with pytest.raises(ValueError, match=r"examples\.json: .*link.*config\.json"):
        write_report(tmp_path)


def test_weights_lie_in_their_own_folder(tmp_path):
    (tmp_path / "weights").mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    index = tmp_path / "weights" / INDEX
    index.write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    with pytest.raises(ValueError, match=rf"{INDEX}: '\.\./other\.safetensors'"):
        load_weights(tmp_path / "weights", lambda *_: None)
    (tmp_path / "weights/other.safetensors").symlink_to("../other.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "other.safetensors"}}))
    found = {}
    load_weights(tmp_path / "weights", found.__setitem__)
    assert found["a"].tolist() == [1]
