"""The names under which people keep their train, val and test data."""

import re
from collections.abc import Iterable
from pathlib import Path

from ufo_large.data.shard_index import SPLITS
from ufo_large.structures import Reporter

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}

BEGINS_WITH_SPLIT = re.compile(rf"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?![a-z0-9])")


def split_said_by(name: str) -> str:
    """Return the split that a name begins with, as train_images and test.csv do; empty where none."""
    found = BEGINS_WITH_SPLIT.match(name.lower())
    return SPLIT_NAMES[found[1]] if found else ""


def splits_among(places: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Return each split's file or folder, from (name, place): that of the plainest name, then the last."""
    named = {name.lower(): place for name, place in places}
    found = {split: named[name] for name, split in reversed(SPLIT_NAMES.items()) if name in named}
    return {split: found[split] for split in SPLITS if split in found}


def subfolders(parent: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones; none where it is not there."""
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each split that a folder holds."""
    return splits_among((folder.name, folder) for folder in subfolders(root))


def report_unread(places: Iterable[Path], read: Iterable[Path], report: Reporter) -> None:
    """Report places beside the splits that no split takes: they would be lost without a word."""
    if names := sorted({p.name for p in places} - {p.name for p in read}):
        taken = ", ".join(sorted(p.name for p in read))
        told = f"{', '.join(names)}: not read beside {taken}; a split is named {', '.join(SPLIT_NAMES)}"
        place = next(p for p in places if p.name == names[0])
        report.add("unread", f"{place.parent}: {told}; rename it, or move it out", place)
