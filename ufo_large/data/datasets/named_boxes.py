"""Detection from entries that name a picture, and each of its boxes by corners and the name of a class."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufo_large.config import outside
from ufo_large.kinds.boxes import Box
from ufo_large.structures import FIX_REMEDY, Example, Findings, Reporter, SourceTask, numbered_info


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedBox:
    """The class of a box and its x0, y0, x1, y1 in pixels. `crowd`: neither right nor wrong to find."""

    name: Any
    corners: Sequence[Any]
    crowd: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedBoxes:
    """One picture, `name` below `folder`, and its boxes."""

    where: str
    folder: Path
    name: Any
    boxes: Sequence[NamedBox]


def names_of(entries: dict[str, list[NamedBoxes]]) -> set[str]:
    """Return the classes that boxes have; what is no text is no class, and is reported with its box."""
    boxes = (box for found in entries.values() for entry in found for box in entry.boxes)
    return {box.name for box in boxes if isinstance(box.name, str)}


def objects_of(image: dict[str, Any], key: str, file: Path, form: str) -> list[dict[str, Any]]:
    """Return an entry's list of objects, empty where it has none; anything else raises ValueError."""
    found = image.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        name = image.get("name", image.get("path"))
        raise ValueError(f"{file}: `{key}` of {name} is no list of objects; {form}")
    return found


def corners_of(box: Any, keys: Sequence[str]) -> list[Any]:
    return [box.get(key) if isinstance(box, dict) else None for key in keys]


def named_boxes_source(
    task: str, names: Iterable[str], entries: dict[str, list[NamedBoxes]], findings: Findings
) -> SourceTask:
    """Return a source of boxes, classes in the order of `names`; wrong entries are reported and left out."""
    info = numbered_info(task, "detection", dict(enumerate(dict.fromkeys(names))))
    splits = {}
    for split, found in entries.items():
        report, examples = findings.at(task, split), {}
        for entry in found:
            example = _example(entry, len(examples) + 1, info.class_names, report)
            if example is not None and example.file_name in examples:
                told = f"{entry.where}: {entry.name} stands twice; {FIX_REMEDY}"
                report.add("duplicate", told, example.image)
            elif example is not None:
                examples[example.file_name] = example
        splits[split] = list(examples.values())
    return SourceTask(info, splits)


def _example(entry: NamedBoxes, number: int, names: Sequence[str], report: Reporter) -> Example | None:
    if told := outside(entry.name):
        report.add("annotation", f"{entry.where}: {entry.name!r} {told}; or {FIX_REMEDY}", entry.folder)
        return None
    path = entry.folder / entry.name
    if not path.is_file():
        told = f"{entry.where}: {entry.name} is not in {entry.folder}; copy it or {FIX_REMEDY}"
        report.add("missing", told, path)
        return None
    boxes = []
    for box in entry.boxes:
        if box.name not in names or not all(_is_finite(v) for v in box.corners):
            told = f"{entry.where}: a box of {box.name!r} at {list(box.corners)} is no class and four numbers"
            report.add("annotation", f"{told}; {FIX_REMEDY}", path, keeps_images=True)
        else:
            xyxy = tuple(map(float, box.corners))
            boxes.append(Box(xyxy=xyxy, label=names.index(box.name), crowd=box.crowd))
    return Example(image=path, file_name=entry.name, image_id=number, where=entry.where, truth=tuple(boxes))


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
