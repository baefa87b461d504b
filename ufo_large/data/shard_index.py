"""The shard format on disk: one dataset.json, and for every tar shard an index that opens it at any sample.

    SHARDS/dataset.json                      tasks, splits, shards with checksums; written last
    SHARDS/<task>/<split>-000000.tar         webdataset tar: <key>.jpg|png, <key>.json, <key>.<target>
    SHARDS/<task>/<split>-000000.index.npz   the columns of `ShardIndex`, one row per sample

`<key>.json` holds the fields of SampleInfo and the annotation of the task's kind; `<key>.<target>` is the
file that some kinds keep beside the image (`mask.png`). Both are described in `ufo_large/kinds/<kind>.py`.
Labels are the model's, 0..K-1. The index repeats labels and what else the kind trains on, so that samplers,
size buckets and readers need not open the tar; it gives each member's offset and size, so that a reader can
map the file and jump.
"""

import hashlib
import io
import json
import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ufo_large.config import Unreadable, from_dict, parse_json, without_credentials
from ufo_large.kinds import require_kind
from ufo_large.structures import TaskInfo

FORMAT = "ufo-large-shards/2"
DATASET_FILE = "dataset.json"
SPLITS = ("train", "val", "test")
# words joined by slashes: never above the root, never an option or anything else to a shell behind a pipe
SHARD_PATH = re.compile(r"\w[\w.-]{,60}(/\w[\w.-]{,60}){,8}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """One shard: `file` and `index` are relative to the data set's root; checksums are sha256 in hex.

    `class_histogram` is the shard's part of its split's. `inputs` is a checksum over what the shard was made
    from, so that sharding can skip what it has. Raises ValueError for a path that is not below the root, or
    a checksum that is none: both become paths on this machine, and a pipe's command.
    """

    file: str
    index: str
    sha256: str
    index_sha256: str
    bytes: int
    count: int
    inputs: str
    class_histogram: tuple[int, ...]

    def __post_init__(self):
        for name in ("file", "index"):
            if not SHARD_PATH.fullmatch(path := getattr(self, name)):
                told = "up to 61 letters, digits and _.- a part, the first a letter or digit, joined by /"
                raise ValueError(f"{name} {path!r} is no path below the shards' folder ({told})")
        for name in ("sha256", "index_sha256", "inputs"):
            if not SHA256.fullmatch(checksum := getattr(self, name)):
                raise ValueError(f"{self.file}: {name} {checksum!r} is not 64 hex digits")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitIndex:
    """One split of one task.

    `labeled` is False for a test split without ground truth. `class_histogram[i]` counts what the kind counts
    of model label i: images, boxes, pixels.
    """

    task: str
    split: str
    count: int
    labeled: bool
    class_histogram: tuple[int, ...]
    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetIndex:
    """What dataset.json says. `root` is the folder (or URL prefix) that the entries' paths are relative to.

    `fingerprint` changes with the tasks, their classes, and any byte of any shard.
    """

    root: str
    fingerprint: str
    tasks: dict[str, TaskInfo]
    splits: dict[str, dict[str, SplitIndex]]

    def split(self, task: str, split: str) -> SplitIndex:
        """Return one split; ValueError lists the ones there are."""
        place = without_credentials(self.root)
        if task not in self.tasks:
            raise ValueError(f"{place}: no task {task!r}; it has {', '.join(self.tasks)}")
        if split not in self.splits[task]:
            raise ValueError(
                f"{place}: task {task!r} has no split {split!r}; it has {', '.join(self.splits[task])}"
            )
        return self.splits[task][split]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ShardIndex:
    """The columns of one shard's index; row i is the shard's i-th sample, n rows in all.

    `keys, file_names`: str. `heights, widths` int32, `image_ids` int64, `orders` int32: as in SampleInfo.
    `image_offsets, image_sizes, json_offsets, json_sizes, target_offsets, target_sizes` int64: where a
    member's bytes lie in the tar; a sample without target has size 0. `crc32s` uint32: zlib.crc32 over image,
    JSON and target bytes, in this order. `label_starts` int64 [n + 1]: sample i owns
    `labels[label_starts[i]:label_starts[i + 1]]` (int32): its class, the label of each box, or the classes
    its mask shows; `label_counts` int64 beside it: 1, 1, or the pixels of that class. `columns`: those of the
    kind, one row per label.
    """

    keys: np.ndarray
    file_names: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    image_ids: np.ndarray
    orders: np.ndarray
    image_offsets: np.ndarray
    image_sizes: np.ndarray
    json_offsets: np.ndarray
    json_sizes: np.ndarray
    target_offsets: np.ndarray
    target_sizes: np.ndarray
    crc32s: np.ndarray
    label_starts: np.ndarray
    labels: np.ndarray
    label_counts: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def labels_of(self, row: int) -> np.ndarray:
        return self.labels[self.label_starts[row] : self.label_starts[row + 1]]

    def to_bytes(self) -> bytes:
        """Serialise as an uncompressed npz; equal columns give equal bytes."""
        buffer = io.BytesIO()
        own = {f"{COLUMN}{name}": values for name, values in self.columns.items()}
        np.savez(buffer, **{name: getattr(self, name) for name in FIXED}, **own)
        return buffer.getvalue()


FIXED = tuple(f.name for f in fields(ShardIndex) if f.name != "columns")
COLUMN = "column."


def read_dataset(path: str | Path, check_files: bool = True) -> DatasetIndex:
    """Read SHARDS/dataset.json and check that every shard and index it names is there.

    Raises ValueError that names the folder and the remedy when it is missing, holds no shards, was written
    in another format, or lacks a shard.
    """
    root = Path(path)
    if root.is_file():
        raise ValueError(f"{root}: a file; give the folder that data_sharding/make_shards.py wrote")
    if not root.is_dir():
        raise ValueError(
            f"{root}: no such folder; write shards with data_sharding/make_shards.py --out {root}"
        )
    file = root / DATASET_FILE
    if not file.is_file():
        raise ValueError(f"{root}: no {DATASET_FILE}, so not a finished shard folder; {_remedy(root)}")
    dataset = parse_dataset(file.read_bytes(), str(root))
    if not check_files:
        return dataset
    missing = [
        name
        for entry in shard_entries(dataset)
        for name in (entry.file, entry.index)
        if not (root / name).is_file()
    ]
    if missing:
        raise ValueError(
            f"{root}: {len(missing)} file(s) that {DATASET_FILE} names are missing: "
            f"{', '.join(missing[:10])}; copy them again or run make_shards.py again"
        )
    return dataset


def _remedy(root: Path) -> str:
    """Say how to make shards, never in a folder that holds something else, such as a user's pictures."""
    if not any(root.iterdir()) or any(root.glob("*/*.tar*")):
        return f"run data_sharding/make_shards.py --data DIR --out {root}"
    return (
        f"pack what it holds into a new folder with data_sharding/make_shards.py --data {root} --out SHARDS, "
        "and give that one"
    )


def parse_dataset(text: bytes | str, root: str) -> DatasetIndex:
    """Build a DatasetIndex from the text of a dataset.json found at `root` (a folder or a URL).

    Raises Unreadable where it is none, or is not what it was when its fingerprint was made.
    """
    place, remedy = without_credentials(f"{root}/{DATASET_FILE}"), "run make_shards.py again"
    raw = parse_json(text, place, remedy)
    found = raw.get("format") if isinstance(raw, dict) else None
    if found != FORMAT:
        raise Unreadable(place, f"format {found!r}, but this version reads {FORMAT!r}", remedy)
    try:
        tasks = {t["name"]: TaskInfo.from_json(t) for t in raw["tasks"]}
        for info in tasks.values():
            require_kind(info)
        splits = {
            task: {split: _split_from_json(task, split, body) for split, body in by_split.items()}
            for task, by_split in raw["splits"].items()
        }
        if splits.keys() != tasks.keys() or not isinstance(raw["fingerprint"], str):
            raise ValueError("`splits` are of other tasks than `tasks`, or `fingerprint` is no text")
        dataset = DatasetIndex(root=root, fingerprint=raw["fingerprint"], tasks=tasks, splits=splits)
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(place, f"incomplete ({error!r})", remedy) from None
    except ValueError as error:
        raise Unreadable(place, error, remedy) from None
    if (found := fingerprint_of(raw)) != dataset.fingerprint:
        told = (
            f"its content has the fingerprint {found[:12]}..., not {dataset.fingerprint[:12]}... as it says: "
            "class names, counts or checksums were changed after it was written"
        )
        raise Unreadable(place, told, f"copy it again, or {remedy}")
    return dataset


def _split_from_json(task: str, split: str, body: dict[str, Any]) -> SplitIndex:
    return from_dict(SplitIndex, {**body, "task": task, "split": split}, f"{task}/{split}")


def shard_entry(row: dict[str, Any]) -> ShardEntry:
    """Build a ShardEntry from the JSON form of its fields; ValueError names the wrong one."""
    return from_dict(ShardEntry, row, "shard")


def shard_entries(dataset: DatasetIndex) -> list[ShardEntry]:
    """Return every shard of every task and split."""
    return [
        entry for by_split in dataset.splits.values() for split in by_split.values() for entry in split.shards
    ]


def dataset_json(tasks: list[TaskInfo], splits: list[SplitIndex]) -> str:
    """Return the text of dataset.json, fingerprint included; equal input gives equal text."""
    body: dict[str, Any] = {
        "tasks": [asdict(task) for task in tasks],
        "splits": {task.name: {} for task in tasks},
    }
    for split in splits:
        row = asdict(split)
        body["splits"][row.pop("task")][row.pop("split")] = row
    body = {"format": FORMAT, "fingerprint": fingerprint_of(body), **body}
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def fingerprint_of(body: Mapping[str, Any]) -> str:
    """Return the sha256 over all that a dataset.json says besides its format and its fingerprint."""
    said = {name: value for name, value in body.items() if name not in ("format", "fingerprint")}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_shard_index(source: str | Path | bytes) -> ShardIndex:
    """Read one shard's index from its file or from bytes already fetched.

    Raises ValueError when it is damaged or lacks a column.
    """
    name = "index" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        _require_stored(content)
        with np.load(io.BytesIO(content), allow_pickle=False) as columns:
            own = {n.removeprefix(COLUMN): columns[n] for n in columns.files if n.startswith(COLUMN)}
            return ShardIndex(**{name: columns[name] for name in FIXED}, columns=own)
    except FileNotFoundError:
        raise ValueError(f"{name}: missing; copy it again or run make_shards.py again") from None
    except DAMAGED as error:
        raise ValueError(
            f"{name}: damaged index ({error}); run verify_shards.py, then make_shards.py again"
        ) from None


# what zipfile and NumPy raise for damaged bytes: flags of encryption and patches, headers that are no literal
DAMAGED = (
    *(KeyError, ValueError, TypeError, SyntaxError, OSError, EOFError, RuntimeError, OverflowError),
    *(MemoryError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def _require_stored(content: bytes) -> None:
    """Raise ValueError for compressed members, which we never write and which might not fit into memory."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        for member in file.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > len(content):
                raise ValueError(f"{member.filename} is compressed")
