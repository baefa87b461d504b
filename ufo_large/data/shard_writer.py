"""Write one shard: a webdataset tar and its index, the same bytes for the same input."""

import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ufo_large.config import note_full_disk
from ufo_large.data.shard_index import ShardEntry, ShardIndex
from ufo_large.data.stored_sample import Transcode, store
from ufo_large.kinds import Column, Stored, kind_of
from ufo_large.media.pictures import FileFacts
from ufo_large.structures import Example, TaskInfo

TAR_HEADER = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardJob:
    """Everything one worker needs for one shard; `inputs` is the checksum of what it is made from."""

    out: Path
    split: str
    number: int
    first_order: int
    info: TaskInfo
    examples: tuple[Example, ...]
    facts: tuple[FileFacts, ...]
    transcode: Transcode
    inputs: str

    @property
    def name(self) -> str:
        return f"{self.info.name}/{self.split}-{self.number:06d}"


def write_shard(job: ShardJob) -> ShardEntry:
    """Write tar and index under temporary names and rename them when whole.

    Raises OSError (a full disk, say) after removing what it began.
    """
    tar_path, index_path = job.out / f"{job.name}.tar", job.out / f"{job.name}.index.npz"
    partial = [path.with_name(path.name + ".tmp") for path in (tar_path, index_path)]
    tar_path.parent.mkdir(parents=True, exist_ok=True)
    hashing = None
    try:
        columns = _Columns(kind_of(job.info).columns)
        with partial[0].open("wb") as file:
            hashing = _HashingFile(file)
            with tarfile.open(fileobj=hashing, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for i in range(len(job.examples)):
                    _write_sample(tar, job, i, columns)
            file.flush()
            os.fsync(file.fileno())
        index_bytes = columns.to_index().to_bytes()
        partial[1].write_bytes(index_bytes)
        for source, target in zip(partial, (tar_path, index_path), strict=True):
            source.replace(target)
    except BaseException as error:
        for path in partial:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            note_full_disk(error, tar_path, hashing and hashing.position)
        raise
    return ShardEntry(
        file=f"{job.name}.tar",
        index=f"{job.name}.index.npz",
        sha256=hashing.digest.hexdigest(),
        index_sha256=hashlib.sha256(index_bytes).hexdigest(),
        bytes=hashing.position,
        count=len(job.examples),
        inputs=job.inputs,
        class_histogram=columns.histogram(job.info.num_classes),
    )


class _HashingFile:
    """A file for tarfile that hashes what passes through."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest, self.position = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.position += len(data)
        return self.file.write(data)

    def tell(self) -> int:
        return self.position


@dataclass(slots=True)
class _Columns:
    kinds: Mapping[str, Column]
    rows: dict[str, list[Any]] = field(default_factory=dict)
    labels: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    own: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, **row: Any) -> None:
        for name, value in row.items():
            self.rows.setdefault(name, []).append(value)

    def add_truth(self, truth: Stored) -> None:
        self.labels += truth.labels
        self.counts += truth.counts
        self.starts.append(len(self.labels))
        for name, values in truth.columns.items():
            self.own.setdefault(name, []).extend(values)

    def histogram(self, num_classes: int) -> tuple[int, ...]:
        """Return the sum of counts by label; empty for a kind without classes."""
        if not num_classes:
            return ()
        counted = np.zeros(num_classes, np.int64)
        np.add.at(counted, np.array(self.labels, np.int64), np.array(self.counts, np.int64))
        return tuple(counted.tolist())

    def to_index(self) -> ShardIndex:
        dtypes = {
            "heights": np.int32,
            "widths": np.int32,
            "orders": np.int32,
            "crc32s": np.uint32,
            "keys": np.str_,
            "file_names": np.str_,
        }
        arrays = {name: np.array(values, dtypes.get(name, np.int64)) for name, values in self.rows.items()}
        return ShardIndex(
            **arrays,
            label_starts=np.array(self.starts, np.int64),
            labels=np.array(self.labels, np.int32),
            label_counts=np.array(self.counts, np.int64),
            columns={
                name: np.array(self.own.get(name, []), column.dtype).reshape(-1, *column.shape)
                for name, column in self.kinds.items()
            },
        )


def _write_sample(tar: tarfile.TarFile, job: ShardJob, position: int, columns: _Columns) -> None:
    example, order = job.examples[position], job.first_order + position
    kind = kind_of(job.info)
    sample = store(example, kind, job.facts[position], job.transcode)
    height, width = sample.picture.size
    key = f"{order:06d}-{re.sub(r'[^A-Za-z0-9_-]', '_', Path(example.file_name).stem)[:60]}"
    facts = {
        "key": key,
        "file_name": example.file_name,
        "height": height,
        "width": width,
        "image_id": example.image_id,
        "order": order,
    }
    target = sample.truth.target
    text = json.dumps({**facts, **sample.truth.annotation}, ensure_ascii=False).encode()
    spans = [
        _append(tar, f"{key}.{sample.extension}", sample.image),
        _append(tar, f"{key}.json", text),
        _append(tar, f"{key}.{kind.target_suffix}", target) if target else (0, 0),
    ]
    columns.add(
        keys=key,
        file_names=example.file_name,
        heights=height,
        widths=width,
        image_ids=example.image_id,
        orders=order,
        image_offsets=spans[0][0],
        image_sizes=spans[0][1],
        json_offsets=spans[1][0],
        json_sizes=spans[1][1],
        target_offsets=spans[2][0],
        target_sizes=spans[2][1],
        crc32s=zlib.crc32(target, zlib.crc32(text, zlib.crc32(sample.image))),
    )
    columns.add_truth(sample.truth)


def _append(tar: tarfile.TarFile, name: str, data: bytes) -> tuple[int, int]:
    """Add a member with fixed owner and time; return (offset of its data, size)."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o644, 0
    offset = tar.offset + TAR_HEADER
    tar.addfile(info, io.BytesIO(data))
    return offset, len(data)
