"""A fixed index: the examples that are left after dropping and clipping, pointing at the user's own files.

check_data.py --fix writes it, make_shards.py --data reads it like any other layout. It may name pictures
anywhere on this machine, so use one only where you wrote it yourself.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ufo_large.config import LARGE_BYTES, Unreadable, read_json, write_text_whole
from ufo_large.data.shard_index import SPLITS
from ufo_large.kinds import Kind, kind_of
from ufo_large.structures import Example, SourceTask, TaskInfo

FIXED_FILE = "fixed.json"
FORMAT = "ufo-large-fixed/2"
REMEDY = "run check_data.py --fix again"


def is_fixed_folder(root: Path) -> bool:
    return (root / FIXED_FILE).is_file()


def write_fixed_index(root: Path, tasks: Iterable[SourceTask]) -> Path:
    """Write ROOT/fixed.json; picture paths in it are absolute."""
    body = {"format": FORMAT, "tasks": [_task_json(task) for task in tasks]}
    root.mkdir(parents=True, exist_ok=True)
    file = root / FIXED_FILE
    write_text_whole(file, json.dumps(body))
    return file


def _task_json(task: SourceTask) -> dict[str, Any]:
    kind = kind_of(task.info)
    splits = {split: [_example_json(e, kind) for e in examples] for split, examples in task.splits.items()}
    return {"info": asdict(task.info), "splits": splits}


def _example_json(example: Example, kind: Kind) -> dict[str, Any]:
    return {
        "image": str(example.image.absolute()),
        "file_name": example.file_name,
        "image_id": example.image_id,
        "size": example.size,
        "truth": kind.to_json(example.truth) if example.labeled else None,
    }


def read_fixed_folder(root: Path) -> list[SourceTask]:
    """Read what `write_fixed_index` wrote. Raises ValueError for another format or an unknown split."""
    file = root / FIXED_FILE
    body = read_json(file, REMEDY, limit=LARGE_BYTES)
    found = body.get("format") if isinstance(body, dict) else None
    if found != FORMAT:
        raise Unreadable(file, f"format {found!r}, but this version reads {FORMAT!r}", REMEDY)
    try:
        return [_task(row, file) for row in body["tasks"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(file, f"not a fixed index ({error!r})", REMEDY) from None


def _task(row: dict[str, Any], file: Path) -> SourceTask:
    info = TaskInfo.from_json(row["info"])
    kind = kind_of(info)
    if unknown := row["splits"].keys() - set(SPLITS):
        known = ", ".join(SPLITS)
        raise ValueError(
            f"{file}: task {info.name!r} has a split {min(unknown)!r}, but splits are {known}; "
            "run check_data.py --fix again"
        )
    splits = {
        split: [_example(e, kind, f"{file}: {info.name}/{split} {e['file_name']}") for e in examples]
        for split, examples in row["splits"].items()
    }
    return SourceTask(info, splits)


def _example(row: dict[str, Any], kind: Kind, where: str) -> Example:
    return Example(
        image=Path(row["image"]),
        file_name=row["file_name"],
        image_id=row["image_id"],
        where=where,
        size=None if row["size"] is None else tuple(row["size"]),
        truth=None if row["truth"] is None else kind.from_json(row["truth"]),
    )
