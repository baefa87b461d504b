"""A fixed index: the examples that are left after dropping and clipping, pointing at the user's own files.

check_data.py --fix writes it, make_shards.py --data reads it like any other layout. It may name pictures
anywhere on this machine, so use one only where you wrote it yourself.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ufo_large.data.datasets.base import Box, Example, MaskCoding, SourceTask
from ufo_large.data.shard_index import SPLITS
from ufo_large.structures import TaskInfo

FIXED_FILE = "fixed.json"
FORMAT = "ufo-large-fixed/1"


def is_fixed_folder(root: Path) -> bool:
    return (root / FIXED_FILE).is_file()


def write_fixed_index(root: Path, tasks: Iterable[SourceTask]) -> Path:
    """Write ROOT/fixed.json; picture paths in it are absolute."""
    codings: list[MaskCoding] = []
    body = {
        "format": FORMAT,
        "tasks": [
            {
                "info": asdict(task.info),
                "splits": {
                    split: [_example_json(e, codings) for e in examples]
                    for split, examples in task.splits.items()
                },
            }
            for task in tasks
        ],
        "mask_codings": [{"table": c.table, "colors": c.colors} for c in codings],
    }
    root.mkdir(parents=True, exist_ok=True)
    file = root / FIXED_FILE
    file.write_text(json.dumps(body), encoding="utf-8")
    return file


def _example_json(example: Example, codings: list[MaskCoding]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "image": str(example.image.absolute()),
        "file_name": example.file_name,
        "image_id": example.image_id,
        "size": example.size,
        "label": example.label,
        "boxes": None if example.boxes is None else [asdict(box) for box in example.boxes],
    }
    if example.mask is not None:
        if example.mask_coding not in codings:
            codings.append(example.mask_coding)
        row |= {"mask": str(example.mask.absolute()), "mask_coding": codings.index(example.mask_coding)}
    return row


def read_fixed_folder(root: Path) -> list[SourceTask]:
    """Read what `write_fixed_index` wrote. Raises ValueError for another format."""
    file = root / FIXED_FILE
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        found = body["format"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not a fixed index ({error!r}); run check_data.py --fix again") from None
    if found != FORMAT:
        raise ValueError(
            f"{file}: format {found!r}, but this version reads {FORMAT!r}; run check_data.py --fix"
        )
    codings = [
        MaskCoding(
            table=tuple(c["table"]),
            colors=None if c["colors"] is None else {int(k): v for k, v in c["colors"].items()},
        )
        for c in body["mask_codings"]
    ]
    return [_task(row, codings, file) for row in body["tasks"]]


def _task(row: dict[str, Any], codings: list[MaskCoding], file: Path) -> SourceTask:
    info = TaskInfo(**{k: tuple(v) if isinstance(v, list) else v for k, v in row["info"].items()})
    if unknown := row["splits"].keys() - set(SPLITS):
        known = ", ".join(SPLITS)
        raise ValueError(
            f"{file}: task {info.name!r} has a split {min(unknown)!r}, but splits are {known}; "
            "run check_data.py --fix again"
        )
    splits = {
        split: [_example(e, codings, f"{file}: {info.name}/{split} {e['file_name']}") for e in examples]
        for split, examples in row["splits"].items()
    }
    return SourceTask(info, splits)


def _example(row: dict[str, Any], codings: list[MaskCoding], where: str) -> Example:
    boxes = row["boxes"]
    return Example(
        image=Path(row["image"]),
        file_name=row["file_name"],
        image_id=row["image_id"],
        where=where,
        size=None if row["size"] is None else tuple(row["size"]),
        label=row["label"],
        boxes=None if boxes is None else tuple(Box(**{**b, "xyxy": tuple(b["xyxy"])}) for b in boxes),
        mask=Path(row["mask"]) if "mask" in row else None,
        mask_coding=codings[row["mask_coding"]] if "mask" in row else None,
    )
