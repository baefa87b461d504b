"""Whether the files of a run's `weights/` or `best/` are as they were written, by what their index says."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ufo_large.config import read_json, require_inside
from ufo_large.distributed.checksums import SEAL, Stamp, fault_of, sealed, stamp_on_disk

INDEX = "model.safetensors.index.json"


def index_body(folder: Path, weight_map: Mapping[str, str]) -> dict[str, Any]:
    """Return what the index holds: each tensor's file, size and SHA-256 of each file, and its own SHA-256."""
    files = {name: asdict(stamp_on_disk(folder / name)) for name in sorted(set(weight_map.values()))}
    return sealed({"metadata": {"files": files}, "weight_map": weight_map})


def whole_files(folder: Path) -> list[Path]:
    """Return the files that the index names, all of which are as they were written.

    Raises ValueError that names one that is not, and the remedy. Weights of an earlier version have no
    checksums, which is told on stderr.
    """
    index = _read(folder)
    names = sorted(set(index["weight_map"].values()))
    files = {name: require_inside(folder, name, folder / INDEX) for name in names}
    if SEAL not in index:
        told = "written by an earlier version, without checksums; damage to them may go unseen"
        print(f"{folder}: {told}", file=sys.stderr)  # not where a program writes its results
        return list(files.values())
    for name, file in files.items():
        stamp = _stamp(index, name)
        if told := f"has no checksum in {INDEX}" if stamp is None else fault_of(file, stamp):
            raise ValueError(f"{file}: {told}; {remedy_for(folder)}")
    return list(files.values())


def has_checksums(folder: Path) -> bool:
    """Whether the folder holds weights that a run wrote; those of others are not of this form."""
    index = read_json(folder / INDEX, remedy_for(folder)) if (folder / INDEX).is_file() else None
    return isinstance(index, dict) and SEAL in index


def remedy_for(folder: Path) -> str:
    """Say what to do about damaged weights."""
    return f"copy it again, or remove {folder} and let the run write it anew with --resume auto"


def _stamp(index: dict[str, Any], name: str) -> Stamp | None:
    match index:
        case {"metadata": {"files": dict(files)}}:
            match files.get(name):
                case {"bytes": int(size), "sha256": str(digest)}:
                    return Stamp(size, digest)
    return None


def _read(folder: Path) -> dict[str, Any]:
    match read_json(folder / INDEX, remedy_for(folder)):
        case {"weight_map": dict(places), **rest} as index if all(
            isinstance(f, str) for f in places.values()
        ):
            if rest and sealed(index) != index:
                told = "damaged, its SHA-256 is not that of what was written"
                raise ValueError(f"{folder / INDEX}: {told}; {remedy_for(folder)}")
            return index
    raise ValueError(f"{folder / INDEX}: names no weights; {remedy_for(folder)}")
