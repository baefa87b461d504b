"""Read shards again and hold every byte against its checksum."""

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

from ufo_large.config import Problems
from ufo_large.data.progress import map_in_processes
from ufo_large.data.shard_index import (
    DATASET_FILE,
    DatasetIndex,
    ShardEntry,
    ShardIndex,
    read_dataset,
    read_shard_index,
    shard_entries,
)

REMEDY = "copy it again, or remove it and run make_shards.py again"


@dataclass(frozen=True, slots=True)
class _Check:
    root: str
    entry: ShardEntry


def verify_shards(path: str | Path, jobs: int = 1) -> DatasetIndex:
    """Check every shard and index of SHARDS and return its index.

    Raises ValueError that names each missing, cut or changed shard and, where it can, the samples hit.
    """
    dataset = read_dataset(path, check_files=False)
    checks = [_Check(dataset.root, entry) for entry in shard_entries(dataset)]
    found = map_in_processes(verify_shard, checks, jobs, "verifying samples", lambda c: c.entry.count)
    by_file = {check.entry.file: messages for check, messages in found}
    problems = Problems(f"{path}/{DATASET_FILE}")
    for check in checks:
        for message in by_file[check.entry.file]:
            problems.add(message)
    problems.raise_if_any()
    return dataset


def verify_shard(check: _Check) -> list[str]:
    """Return what is wrong with one shard; empty when every byte is as it was written."""
    entry, root = check.entry, Path(check.root)
    tar, index_path = root / entry.file, root / entry.index
    missing = [f"{path}: missing; {REMEDY}" for path in (tar, index_path) if not path.is_file()]
    if missing:
        return missing
    index_bytes = index_path.read_bytes()
    if hashlib.sha256(index_bytes).hexdigest() != entry.index_sha256:
        return [f"{index_path}: its bytes changed since it was written; {REMEDY}"]
    size = tar.stat().st_size
    if size == entry.bytes and _sha256(tar) == entry.sha256:
        return []
    what = f"cut or grown: {size} bytes instead of {entry.bytes}" if size != entry.bytes else "bytes changed"
    hit = _changed_samples(tar, read_shard_index(index_bytes))
    return [f"{tar}: {what}; {_name_samples(hit)}; {REMEDY}"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changed_samples(tar: Path, index: ShardIndex) -> list[str]:
    """Return the keys of samples whose bytes differ from their checksum."""
    changed = []
    with tar.open("rb") as file:
        for row in range(len(index)):
            crc = 0
            for offsets, sizes in (
                (index.image_offsets, index.image_sizes),
                (index.json_offsets, index.json_sizes),
                (index.target_offsets, index.target_sizes),
            ):
                file.seek(int(offsets[row]))
                crc = zlib.crc32(file.read(int(sizes[row])), crc)
            if crc != int(index.crc32s[row]):
                changed.append(str(index.keys[row]))
    return changed


def _name_samples(keys: list[str]) -> str:
    if not keys:
        return "no sample is hit, only tar headers or padding"
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return f"{len(keys)} sample(s) hit: {', '.join(keys[:5])}{more}"
