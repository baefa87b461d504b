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
from ufo_large.data.datasets.base import Example, Findings, SourceTask
from ufo_large.data.datasets.sources import read_sources
from ufo_large.media.pictures import mask_values
from ufo_large.data.shard_index import DatasetIndex, read_shard_index
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.structures import IGNORE_INDEX, TaskInfo


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
            _check_schema(task, examples)
            _check_round_trip(dataset, task, split)
    return dataset


def _check_schema(task: SourceTask, examples: Sequence[Example]) -> None:
    assert len({e.image_id for e in examples}) == len(examples), "image ids collide"
    for example in examples:
        labels = [example.label] if example.label is not None else [b.label for b in example.boxes or ()]
        assert all(0 <= label < task.info.num_classes for label in labels), (example.where, labels)
        assert sum(x is not None for x in (example.label, example.boxes, example.mask)) <= 1


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
        _check_annotation(sample, facts, example, task.info.num_classes)


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
    sample: dict[str, Any], facts: dict[str, Any], example: Example, num_classes: int
) -> None:
    assert facts.get("label") == example.label
    if example.boxes is not None:
        assert facts["boxes_xyxy"] == [list(box.xyxy) for box in example.boxes]
        assert facts["labels"] == [box.label for box in example.boxes]
        assert all(0 <= v <= s for b in facts["boxes_xyxy"]
                   for v, s in zip(b, (facts["width"], facts["height"]) * 2, strict=True))  # fmt: skip
    assert ("mask.png" in sample) == (example.mask is not None)
    if example.mask is not None:
        stored = mask_values(sample["mask.png"])
        assert stored.shape == (facts["height"], facts["width"])
        assert set(np.unique(stored)) <= {*range(num_classes), IGNORE_INDEX}
