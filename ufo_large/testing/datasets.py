"""The contract of a data set reader: what every layout must give, up to shards that webdataset reads back."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image

from ufo_large.data.checking import check_tasks, files_of, inspect_files
from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.shard_index import DatasetIndex, read_shard_index
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.kinds import Stored, StoredPicture, kind_of
from ufo_large.media.pictures import FileFacts, mask_values
from ufo_large.structures import IGNORE_INDEX, Example, Findings, SourceTask, TaskInfo


def check_dataset(
    data: Sequence[str | Path],
    out: Path,
    counts: Mapping[str, int] | None = None,
    known: Mapping[str, TaskInfo] | None = None,
) -> DatasetIndex:
    """Assert that a layout reads cleanly and survives the round trip through shards; return their index.

    Schema: ids and names are unique in a split, labels are in range, boxes lie inside. Order: shards keep the
    reader's. Round trip: pictures are the user's bytes, annotations equal, masks equal through their coding.
    """
    findings = Findings()
    tasks = read_sources(data, findings, counts, known)
    facts = inspect_files(files_of(tasks))
    tasks = check_tasks(tasks, facts, findings)
    assert not findings.items, [item.message for item in findings.items]
    assert tasks, "no task found"
    dataset = make_shards(data, out, ShardingOptions(counts=counts or {}, known=known or {}))
    for task in tasks:
        assert dataset.tasks[task.info.name] == task.info
        for split, examples in task.splits.items():
            _check_schema(task, examples, facts)
            _check_round_trip(dataset, task, split)
    return dataset


def write_stripes(path: Path, *values: int) -> Path:
    """Write a mask of 40 x 30 pixels: vertical stripes of the values, from left to right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = np.repeat(np.array(values, np.uint8), -(-40 // len(values)))[:40]
    Image.fromarray(np.broadcast_to(stripes, (30, 40)).copy()).save(path)
    return path


def _check_schema(task: SourceTask, examples: Sequence[Example], facts: Mapping[Path, FileFacts]) -> None:
    assert len({e.image_id for e in examples}) == len(examples), "image ids collide"
    kind, known = kind_of(task.info), {*range(task.info.num_classes), IGNORE_INDEX}
    for example in examples:
        labels = kind.classes_of(example.truth, facts) if example.labeled else []
        assert known.issuperset(labels), (example.where, labels)


def _check_round_trip(dataset: DatasetIndex, task: SourceTask, split: str) -> None:
    examples, index = task.splits[split], dataset.split(task.info.name, split)
    samples = _read_back(dataset, task.info.name, split)
    assert len(samples) == len(examples) == index.count
    for order, (sample, example) in enumerate(zip(samples, examples, strict=True)):
        facts = json.loads(sample["json"])
        assert (facts["order"], facts["file_name"], facts["image_id"]) == (
            order,
            example.file_name,
            example.image_id,
        )
        _check_picture(sample, facts, example)
        _check_annotation(sample, facts, example, task.info)


def _read_back(dataset: DatasetIndex, task: str, split: str) -> list[dict[str, Any]]:
    """Read with webdataset, and hold each member against the index's offsets."""
    samples = []
    for entry in dataset.split(task, split).shards:
        tar = Path(dataset.root) / entry.file
        columns, data = read_shard_index(Path(dataset.root) / entry.index), tar.read_bytes()
        found = list(webdataset.WebDataset(str(tar), shardshuffle=False))
        assert [s["__key__"] for s in found] == columns.keys.tolist()
        for row, sample in enumerate(found):
            start = int(columns.json_offsets[row])
            assert data[start : start + int(columns.json_sizes[row])] == sample["json"]
            start = int(columns.image_offsets[row])
            assert data[start : start + int(columns.image_sizes[row])] == (
                sample.get("jpg") or sample.get("png")
            )
        samples += found
    return samples


def _check_picture(sample: dict[str, Any], facts: dict[str, Any], example: Example) -> None:
    stored = sample.get("jpg") or sample.get("png")
    with Image.open(io.BytesIO(stored)) as image:
        assert (image.height, image.width) == (facts["height"], facts["width"])
    if example.image.suffix.lower() in (".jpg", ".jpeg", ".png"):
        assert stored == example.image.read_bytes(), f"{example.image}: bytes changed"


def _check_annotation(
    sample: dict[str, Any], facts: dict[str, Any], example: Example, info: TaskInfo
) -> None:
    kind, size = kind_of(info), (facts["height"], facts["width"])
    stored = kind.stored(example.truth, StoredPicture(size=size)) if example.labeled else Stored()
    assert {name: facts[name] for name in stored.annotation} == json.loads(json.dumps(stored.annotation))
    assert sample.get(kind.target_suffix, b"") == stored.target
    assert all(0 <= v <= s for b in facts.get("boxes_xyxy", ())
               for v, s in zip(b, size[::-1] * 2, strict=True))  # fmt: skip
    if "mask.png" in sample:
        values_HW = mask_values(sample["mask.png"])
        assert values_HW.shape == size
        assert set(np.unique(values_HW)) <= {*range(info.num_classes), IGNORE_INDEX}
