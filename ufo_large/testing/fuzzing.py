"""Readers of files that a stranger may have written, each with a good file to damage."""

import contextlib
import io
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from ufo_large.config import apply_overrides, read_json
from ufo_large.data.checking import check_tasks, files_of, inspect_files
from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.shard_index import read_dataset, read_shard_index
from ufo_large.data.shards import ShardSet
from ufo_large.distributed.checkpoint import (
    COMPLETE,
    INDEX,
    load_weights,
    naming_an_earlier,
    read_complete,
)
from ufo_large.distributed.plain_files import read_plain
from ufo_large.evaluation.ground_truth import GroundTruth
from ufo_large.evaluation.submission_reader import read_submission
from ufo_large.media.decode import decode_image, decode_labels
from ufo_large.media.pictures import encode_jpeg
from ufo_large.runs.config import RunConfig
from ufo_large.runs.folder import RunFolder
from ufo_large.structures import BadSample, Findings, SampleInfo, TaskInfo
from ufo_large.testing.mutations import damaged_bytes, damaged_json
from ufo_large.testing.tiny_shards import tiny_shards

Damage = Callable[[bytes, random.Random], bytes]
SLOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """`file` in a folder of good files, how it is damaged, and what reads it.

    `names_file`: an error must hold its name, or that of a file beside it; else whoever called names it.
    """

    file: Path
    damage: Damage
    read: Callable[[], Any]
    names_file: bool = True


@dataclass(slots=True)
class Outcome:
    """Of `inputs` damaged files: how many were read, refused, or ended in an error that is not ours."""

    inputs: int = 0
    read: int = 0
    refused: int = 0
    slow: int = 0
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


def fuzz(target: Target, count: int, seed: int) -> Outcome:
    """Read `count` damaged files; the good file is put back at the end."""
    good, outcome = target.file.read_bytes(), Outcome()
    beside = set(target.file.parent.parent.rglob("*"))
    try:
        for number in range(count):
            target.file.write_bytes(target.damage(good, random.Random(f"{seed} {number}")))
            _read(target, number, outcome)
    finally:
        target.file.write_bytes(good)
    if written := set(target.file.parent.parent.rglob("*")) - beside:
        outcome.wrong.append(f"wrote {', '.join(sorted(path.name for path in written))}")
    return outcome


def _read(target: Target, number: int, outcome: Outcome) -> None:
    began = time.perf_counter()
    outcome.inputs += 1
    try:
        target.read()
        outcome.read += 1
    except Exception as error:
        if _is_ours(error, target):
            outcome.refused += 1
        else:
            outcome.wrong.append(f"{number}: {type(error).__name__}: {str(error)[:200]}")
    seconds = time.perf_counter() - began
    outcome.slow += seconds > SLOW_S
    outcome.slowest_s = max(outcome.slowest_s, seconds)


def _is_ours(error: Exception, target: Target) -> bool:
    """Whether the project meant it: plain ValueError or its own class, which says which file."""
    own = type(error) in (ValueError, BadSample) or type(error).__module__.startswith("ufo_large.")
    return own and (not target.names_file or str(target.file.parent) in str(error))


def targets(folder: Path, config: RunConfig) -> dict[str, Target]:
    """Write good files of every kind under `folder`; return what reads them. `config` is that of a run."""
    shards = tiny_shards(folder / "tiny", count=4)
    found = dict(_layouts(folder, folder / "tiny/train_data"))
    index = next(shards.glob("**/*.npz"))
    found["dataset.json"] = _json(shards / "dataset.json", lambda: read_dataset(shards))
    found["index"] = Target(index, damaged_bytes, lambda: read_shard_index(index))
    found["shard"] = _shard(shards)
    found["submission.json"] = _submission(folder)
    found |= _run(folder, shards, config)
    picture, mask = folder / "media/jpeg/picture.jpg", folder / "media/png/mask.png"
    for place in (picture.parent, mask.parent):
        place.mkdir(parents=True)
    picture.write_bytes(encode_jpeg(np.arange(2880, dtype=np.uint8).reshape(24, 40, 3), 80))
    shutil.copy(next((folder / "tiny/train_data/seg/label/train").glob("*.png")), mask)
    found["JPEG"] = Target(picture, damaged_bytes, lambda: decode_image(picture.read_bytes()), False)
    found["mask"] = Target(mask, damaged_bytes, lambda: decode_labels(mask.read_bytes()), False)
    return found


def _json(file: Path, read: Callable[[], Any]) -> Target:
    return Target(file, damaged_json, read)


def _source(root: Path, file: Path, damage: Damage) -> Target:
    """Read a data set as make_shards.py does; what is found wrong inside is reported, not raised."""

    def read() -> None:
        findings = Findings()
        tasks = read_sources([root], findings)
        with contextlib.redirect_stdout(io.StringIO()):  # progress
            check_tasks(tasks, inspect_files(files_of(tasks)), findings)

    return Target(file, damage, read, names_file=False)


def _layouts(folder: Path, contest: Path) -> Iterator[tuple[str, Target]]:
    contest_parts = (("cls/train.txt", "label list"), ("dec/train.json", "contest's COCO"))
    for file, name in contest_parts:
        part = folder / name.replace(" ", "_")
        shutil.copytree(contest / file.split("/")[0], part / file.split("/")[0])
        yield name, _source(part, part / file, damaged_json if file.endswith("json") else damaged_bytes)
    pictures = sorted((contest / "dec/train").glob("*.png"))
    for name, (file, text, place) in LAYOUTS.items():
        root = folder / name.replace(" ", "_")
        for path in pictures:
            (root / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / place / path.name)
        for written, content in {**text, file: text[file]}.items():
            (root / written).parent.mkdir(parents=True, exist_ok=True)
            (root / written).write_text(content)
        yield name, _source(root, root / file, damaged_json if file.endswith(".json") else damaged_bytes)


_COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "001.png", "height": 40, "width": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 0}],
        "categories": [{"id": 1, "name": "car"}],
    }
)
_VOC = """<annotation><filename>001.png</filename><size><width>40</width><height>40</height></size>
<object><name>car</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>
<ymax>9</ymax></bndbox></object></annotation>"""
_YAML = "train: images\nval: images\nnames: [car, sign]\n"
_METADATA = '{"file_name": "001.png", "objects": {"bbox": [[1, 1, 9, 9]], "categories": ["car"]}}\n'
LAYOUTS: dict[str, tuple[str, dict[str, str], str]] = {
    "COCO": ("annotations/instances_train.json", {"annotations/instances_train.json": _COCO}, "train"),
    "VOC": ("Annotations/001.xml", {"Annotations/001.xml": _VOC}, "JPEGImages"),
    "YOLO labels": (
        "labels/001.txt",
        {"labels/001.txt": "0 0.5 0.5 0.2 0.2\n", "data.yaml": _YAML},
        "images",
    ),
    "data.yaml": ("data.yaml", {"labels/001.txt": "0 0.5 0.5 0.2 0.2\n", "data.yaml": _YAML}, "images"),
    "CSV": ("train.csv", {"train.csv": "file,label\n001.png,a\n002.png,b\n"}, "train"),
    "metadata.jsonl": ("train/metadata.jsonl", {"train/metadata.jsonl": _METADATA}, "train"),
}
"""File to damage, texts of files, and where pictures lie."""


def _shard(shards: Path) -> Target:
    """Read every sample of a shard; what is wrong with one is a BadSample."""
    file = next(shards.glob("seg/**/*.tar"))

    def read() -> None:
        opened = ShardSet.open(str(shards)).split("seg", "train")
        for number in range(len(opened)):
            opened.read(number)

    return Target(file, damaged_bytes, read, names_file=False)


def _submission(folder: Path) -> Target:
    def truth(name: str, kind: str) -> GroundTruth:
        info = TaskInfo(name=name, kind=kind, class_names=("a", "b"), class_ids=(0, 2))
        sample = SampleInfo(key="s", file_name="s.jpg", height=4, width=6, image_id=1, order=0)
        return GroundTruth(info=info, samples=(sample,), read=lambda i: None)

    kinds = {"cls": "classification", "dec": "detection", "seg": "segmentation"}
    truths = {name: truth(name, kind) for name, kind in kinds.items()}
    box = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}
    rings = {"s.png": {"2": [[[0, 0], [4, 0], [4, 4]]]}}
    file = folder / "scoring/submission/submission.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"cls": [{"s.jpg": 2}], "dec": [box], "seg": [rings]}))
    return _json(file, lambda: read_submission(file, truths))


def _run(folder: Path, shards: Path, config: RunConfig) -> dict[str, Target]:
    run = RunFolder(folder / "run")
    opened = ShardSet.open(str(shards))
    run.write(config, tuple(opened.tasks), opened.fingerprint, str(shards), None)
    checkpoint, weights = folder / "checkpoints/step-00000001", folder / "weights"
    for place in (checkpoint, weights):
        place.mkdir(parents=True)
    (checkpoint / COMPLETE).write_text(json.dumps({"step": 1, "world_size": 1, "engine": "plain"}))
    torch.save({"step": 1, "state": {"a": [torch.ones(3)]}}, checkpoint / "rank-0.pt")
    save_file({"a": torch.ones(2)}, weights / "model-00001.safetensors")
    (weights / INDEX).write_text(json.dumps({"weight_map": {"a": "model-00001.safetensors"}}))
    words = folder / "words/set/set.txt"
    words.parent.mkdir(parents=True)
    words.write_text("tasks.classification.loader.image_size=64,64")

    def rank_file() -> None:
        with naming_an_earlier(checkpoint):
            read_plain(checkpoint / "rank-0.pt")

    return {
        "run's config.json": _json(run.config_file, run.read),
        "complete.json": _json(checkpoint / COMPLETE, lambda: read_complete(checkpoint)),
        "rank file": Target(checkpoint / "rank-0.pt", damaged_bytes, rank_file, names_file=False),
        "weights' index": _json(weights / INDEX, lambda: load_weights(weights, lambda *_: None)),
        "--set": Target(
            words,
            damaged_bytes,
            lambda: apply_overrides(config, [words.read_bytes().decode("latin-1")]),
            names_file=False,
        ),
        "any JSON": _json(run.config_file, lambda: read_json(run.config_file, "write it again")),
    }
