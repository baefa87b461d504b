"""Open a folder or URL of shards and read any sample in constant time.

Samples are read with pread from the offsets in the index: no scan, no state, the same cost for the first
and the last sample, and safe in forked workers. (A memory map would be no faster and kills the process when
a shard shrinks under it.) The bytes of each sample are held against the index's checksum at every read, which
takes 0.02 ms for 100 kB: what a disk, a copy or an edit changed is neither trained on nor scored.
"""

import hashlib
import math
import os
import time
import zlib
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ufo_large.config import parse_json, without_credentials
from ufo_large.data.errors import DataError
from ufo_large.data.opener import Retry, default_cache, fetch_bytes, fetch_to_cache, is_remote, join_url
from ufo_large.data.shard_index import (
    DATASET_FILE,
    DatasetIndex,
    ShardEntry,
    ShardIndex,
    SplitIndex,
    parse_dataset,
    read_dataset,
    read_shard_index,
)
from ufo_large.kinds import Column, kind_of
from ufo_large.structures import BadSample, RawSample, SampleInfo, TaskInfo

MAX_OPEN_FILES = 256
NAME_CHECK_S = 1.0
MEMBERS = ("image", "json", "target")
ROWS = (
    *("keys", "file_names", "heights", "widths", "image_ids", "orders", "crc32s"),
    *(f"{member}_{column}" for member in MEMBERS for column in ("offsets", "sizes")),
)


class ShardReplaced(DataError):
    """A shard is not the file that the index describes, or changed while it was being read."""


class ShardSet:
    """The tasks and splits of one folder, URL prefix or pipe of shards."""

    def __init__(self, dataset: DatasetIndex, cache: Path | None, retry: Retry):
        self._dataset, self._cache, self._retry = dataset, cache, retry

    @classmethod
    def open(
        cls, location: str | Path, *, cache: Path | None = None, retry: Retry | None = None
    ) -> "ShardSet":
        """Read dataset.json at `location`: a folder, a URL (http, s3, ...) or `pipe:COMMAND {}`.

        Remote shards are fetched at first use into `cache` (default: $UFO_CACHE or the user's cache folder),
        which therefore needs room for them. Raises ValueError or FetchError naming what is missing.
        """
        location, retry = str(location), retry or Retry()
        if not is_remote(location):
            return cls(read_dataset(location), None, retry)
        text = fetch_bytes(join_url(location, DATASET_FILE), retry)
        return cls(parse_dataset(text, location), cache or default_cache(), retry)

    @property
    def root(self) -> str:
        return self._dataset.root

    @property
    def name(self) -> str:
        """The root as messages and logs may show it."""
        return without_credentials(self.root)

    @property
    def fingerprint(self) -> str:
        return self._dataset.fingerprint

    @cached_property
    def tasks(self) -> tuple[TaskInfo, ...]:
        return tuple(self._dataset.tasks.values())

    def task(self, name: str) -> TaskInfo:
        """Return a task by name; ValueError lists the ones there are."""
        if name not in self._dataset.tasks:
            raise ValueError(f"{self.name}: no task {name!r}; it has {', '.join(self._dataset.tasks)}")
        return self._dataset.tasks[name]

    def has_split(self, task: str, split: str) -> bool:
        """Tell whether the task has this split with at least one sample."""
        found = self._dataset.splits.get(task, {}).get(split)
        return found is not None and found.count > 0

    def split(self, task: str, split: str) -> "SplitReader":
        """Open one split; raises ValueError when it does not exist or an index is damaged."""
        index = self._dataset.split(task, split)
        columns = [self._read_index(entry) for entry in index.shards]
        files = [ShardFile(self.root, entry, self._cache, self._retry) for entry in index.shards]
        return SplitReader(self._dataset.tasks[task], index, columns, files)

    def _read_index(self, entry: ShardEntry) -> ShardIndex:
        if self._cache is None:
            file = Path(self.root) / entry.index
            data = file.read_bytes()
            if hashlib.sha256(data).hexdigest() != entry.index_sha256:
                raise ValueError(f"{file}: not the index {DATASET_FILE} names; run verify_shards.py")
            return read_shard_index(data)
        url = join_url(self.root, entry.index)
        for _ in range(2):
            file = fetch_to_cache(url, entry.index_sha256, self._cache, self._retry)
            data = file.read_bytes()
            if hashlib.sha256(data).hexdigest() == entry.index_sha256:
                return read_shard_index(data)
            file.unlink(missing_ok=True)  # damaged in the cache
        told = "the cache gives other bytes than were written to it"
        raise DataError(f"{file}: {told}; set UFO_CACHE to a folder on another disk")


class ShardFile:
    """One tar shard, opened at first use; notices when it is replaced or rewritten while training runs.

    Every read checks size and time of the open file. Whether another file has taken its name is checked once
    a second: until then the open file still gives the right bytes.
    """

    def __init__(self, root: str, entry: ShardEntry, cache: Path | None, retry: Retry):
        self.entry, self._root, self._cache, self._retry = entry, root, cache, retry
        self._descriptor: int | None = None
        self._name_checked_s = -math.inf
        self._path: str = "" if cache else str(Path(root) / entry.file)
        self._identity = None if cache else self._identity_of(self._path)

    @property
    def name(self) -> str:
        """The path or URL as messages and logs may show it."""
        return without_credentials(join_url(self._root, self.entry.file)) if self._cache else self._path

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset`; raises ShardReplaced when the file is not the one first seen."""
        if self._descriptor is None:
            self.open()
        now = time.monotonic()
        if now - self._name_checked_s > NAME_CHECK_S:
            self._check(self._path)
            self._name_checked_s = now
        self._check(self._descriptor)
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise ShardReplaced(f"{self.name}: ends at byte {offset + len(data)}; {REPLACED}")
        return data

    def open(self) -> None:
        """Open the file, fetching it first when it is remote."""
        if self._cache is not None:
            url = join_url(self._root, self.entry.file)
            size = self.entry.bytes
            self._path = str(fetch_to_cache(url, self.entry.sha256, self._cache, self._retry, size))
        self._identity = self._identity or self._identity_of(self._path)
        self._descriptor = os.open(self._path, os.O_RDONLY)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _check(self, path_or_descriptor: str | int) -> None:
        if self._identity_of(path_or_descriptor) != self._identity:
            raise ShardReplaced(f"{self.name}: {REPLACED}")

    def _identity_of(self, path_or_descriptor: str | int) -> tuple[int, int, int]:
        try:
            found = os.stat(path_or_descriptor)
        except FileNotFoundError:
            raise ShardReplaced(f"{self.name}: no longer there; {REPLACED}") from None
        if found.st_size != self.entry.bytes:
            size = f"{found.st_size} bytes, {self.entry.bytes} expected"
            raise ShardReplaced(f"{self.name}: {size}; {REPLACED}")
        return found.st_ino, found.st_size, found.st_mtime_ns

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}

    def __del__(self):
        self.close()


REPLACED = (
    "the shard was replaced or cut after dataset.json was read. "
    "Put the old file back, or shard again and start a new run on the new data"
)

CHANGED = (
    "its bytes are not those that were written (they fail the index's checksum). "
    "data_sharding/verify_shards.py lists all such samples; copy the shard again, or run make_shards.py again"
)


class SplitReader:
    """Random access to the samples of one split, numbered 0..len-1 in shard order.

    `heights, widths` int32 [n] are the stored sizes; sample i owns rows `label_starts[i]:label_starts[i +
    1]` of `labels` and of each of the kind's `columns`: what samplers need without touching a shard.
    """

    def __init__(self, info: TaskInfo, index: SplitIndex, columns: list[ShardIndex], files: list[ShardFile]):
        self.info, self.split, self.labeled = info, index.split, index.labeled
        self.class_histogram = index.class_histogram
        self._files = files
        self._open: OrderedDict[int, None] = OrderedDict()
        counts = [len(c) for c in columns]
        if not counts:
            raise ValueError(f"task {info.name!r}: split {index.split!r} holds no shard")
        self._shard_of = np.repeat(np.arange(len(columns)), counts)
        self._rows = {name: np.concatenate([getattr(c, name) for c in columns]) for name in ROWS}
        self._spans = {kind: (self._rows[f"{kind}_offsets"], self._rows[f"{kind}_sizes"]) for kind in MEMBERS}
        self.heights, self.widths = self._rows["heights"], self._rows["widths"]
        per_sample = np.concatenate([np.diff(c.label_starts) for c in columns])
        self.label_starts = np.concatenate([[0], np.cumsum(per_sample)]).astype(np.int64)
        self.labels = np.concatenate([c.labels for c in columns]).astype(np.int64)
        self.columns = {n: _joined(info, n, c, columns) for n, c in kind_of(info).columns.items()}

    def __len__(self) -> int:
        return len(self._shard_of)

    def sample(self, index: int) -> SampleInfo:
        """Return what is known of a sample without reading its shard."""
        rows = self._rows
        return SampleInfo(
            key=rows["keys"].item(index),
            file_name=rows["file_names"].item(index),
            height=rows["heights"].item(index),
            width=rows["widths"].item(index),
            image_id=rows["image_ids"].item(index),
            order=rows["orders"].item(index),
        )

    def read(self, index: int) -> RawSample:
        """Return the stored bytes and labels; ShardReplaced and FetchError name the shard.

        Raises BadSample where image, annotation or target are not the bytes that sharding wrote.
        """
        chosen = slice(self.label_starts.item(index), self.label_starts.item(index + 1))
        image, _, target = self._members(index)
        return RawSample(
            image=image,
            sample=self.sample(index),
            labeled=self.labeled,
            labels=self.labels[chosen],
            columns={name: column[chosen] for name, column in self.columns.items()},
            target=target or None,
        )

    def truth(self, index: int) -> Any:
        """Return what predictions of a labelled sample are counted against; see `Kind.truth`.

        Raises DataError where the sample's bytes were changed, because a score skips nothing.
        """
        try:
            _, text, target = self._members(index)
        except BadSample as error:
            raise DataError(f"{self.sample(index).file_name} in {self.shard_of(index)}: {error}") from None
        annotation = parse_json(text, self.shard_of(index), "run verify_shards.py")
        return kind_of(self.info).truth(annotation, target or None)

    def shard_of(self, index: int) -> str:
        """Return the path or URL of the shard that holds the sample."""
        return self._files[self._shard_of[index]].name

    def _members(self, index: int) -> tuple[bytes, bytes, bytes]:
        """Return image, JSON and target (empty where there is none) as they were written, else BadSample."""
        image, text, target = (self._member(index, kind) for kind in MEMBERS)
        if zlib.crc32(target, zlib.crc32(text, zlib.crc32(image))) != self._rows["crc32s"].item(index):
            raise BadSample(CHANGED)
        return image, text, target

    def _member(self, index: int, kind: str) -> bytes:
        shard = self._shard_of.item(index)
        if len(self._files) > MAX_OPEN_FILES:
            self._close_oldest(shard)
        offsets, sizes = self._spans[kind]
        if not sizes.item(index):
            return b""
        return self._files[shard].read(offsets.item(index), sizes.item(index))

    def _close_oldest(self, shard: int) -> None:
        """Close the shard used longest ago when one more than the limit is about to be open."""
        self._open[shard] = None
        self._open.move_to_end(shard)
        if len(self._open) > MAX_OPEN_FILES:
            self._files[self._open.popitem(last=False)[0]].close()


def _joined(info: TaskInfo, name: str, column: Column, shards: list[ShardIndex]) -> np.ndarray:
    """Return one of the kind's columns over all shards."""
    if any(name not in shard.columns for shard in shards):
        raise ValueError(f"task {info.name!r}: an index lacks the column {name!r}; run make_shards.py again")
    joined = np.concatenate([shard.columns[name] for shard in shards])
    return joined.astype(column.dtype).reshape(-1, *column.shape)
