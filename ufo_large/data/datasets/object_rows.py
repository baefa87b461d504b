"""Detection from rows in Hugging Face's form: `objects` with `bbox` and `categories`, one entry per box."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ufo_large.data.datasets.coco import is_box
from ufo_large.data.datasets.labelled_pictures import Labelled, the_picture, with_names
from ufo_large.data.datasets.tables import Pictures
from ufo_large.kinds.boxes import Box
from ufo_large.structures import (
    FIX_REMEDY,
    Example,
    Findings,
    Reporter,
    SourceTask,
    TaskInfo,
    numbered_info,
)

OBJECTS = "objects"
CATEGORIES = ("categories", "category")
WANTED = f"{OBJECTS} needs bbox, a list of [x, y, width, height] in pixels, and categories, one per box"


def object_rows_source(
    root: Path,
    rows: Sequence[Labelled],
    pictures: Pictures,
    task: str,
    findings: Findings,
    names: Sequence[str] = (),
) -> SourceTask:
    """Return a source of boxes from rows whose `label` is the cell `objects`.

    Classes are `names`, else the categories that the boxes have.
    """
    info = numbered_info(task, "detection", dict(enumerate(names)) if names else _classes(rows))
    splits: dict[str, dict[Path, Example]] = {}
    for row in rows:
        examples, report = splits.setdefault(row.split, {}), findings.at(task, row.split)
        path = the_picture(row.where, row.said, row.split, pictures, report)
        if path in examples:
            report.add("duplicate", f"{row.where}: {row.said} stands twice; {FIX_REMEDY}", path)
        elif path is not None:
            examples[path] = Example(
                image=path,
                file_name="/".join(pictures.parts(path)),
                image_id=len(examples) + 1,
                where=row.where,
                truth=_boxes_of(row, info, path, report),
            )
    info = with_names(info, root, findings.at(task))
    return SourceTask(info, {split: list(examples.values()) for split, examples in splits.items()})


def _classes(rows: Sequence[Labelled]) -> dict[int, str]:
    names = sorted({str(c) for row in rows for c in categories_of(row.label)})
    if all(name.isdecimal() for name in names):
        return {int(name): name for name in names}
    return dict(enumerate(names))


def categories_of(objects: Any) -> list[Any]:
    if not isinstance(objects, Mapping):
        return []
    found = next((objects[key] for key in CATEGORIES if key in objects), [])
    return found if isinstance(found, list) else []


def _boxes_of(row: Labelled, info: TaskInfo, path: Path, report: Reporter) -> tuple[Box, ...]:
    found = row.label.get("bbox") if isinstance(row.label, Mapping) else None
    classes = categories_of(row.label)
    if not isinstance(found, list) or len(found) != len(classes) or not all(map(is_box, found)):
        report.add("annotation", f"{row.where}: {WANTED}; {FIX_REMEDY}", path, keeps_images=True)
        return ()
    boxes = []
    for (x, y, width, height), category in zip(found, map(str, classes), strict=True):
        if category in info.class_names:
            label = info.class_names.index(category)
            boxes.append(Box(xyxy=(x, y, x + width, y + height), label=label))
        else:
            told = f"{row.where}: class {category!r} is none of {', '.join(info.class_names)}"
            report.add("annotation", f"{told}; {FIX_REMEDY}", path, keeps_images=True)
    return tuple(boxes)
