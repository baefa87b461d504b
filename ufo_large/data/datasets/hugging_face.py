"""Hugging Face's imagefolder: metadata.jsonl or metadata.csv beside pictures, which it names in `file_name`.

A file in each split's folder, or one in ROOT, where the folders of the pictures say the split. `objects` with
`bbox` ([x, y, width, height] in pixels) and `categories` are boxes; else the one other column is the class.
Numbers of classes have names where ROOT has a classes.txt.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ufo_large.data.datasets.coco import is_box
from ufo_large.data.datasets.labelled_pictures import (
    Labelled,
    classes_of,
    labelled_splits,
    report_unnamed,
    the_picture,
    with_names,
)
from ufo_large.data.datasets.split_names import split_folders, split_said_by
from ufo_large.data.datasets.tables import Pictures, Table, label_column, read_csv, read_jsonl, split_of
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

FILES = ("metadata.jsonl", "metadata.csv")
NAME, OBJECTS = "file_name", "objects"
CATEGORIES = ("categories", "category")
WANTED = f"{OBJECTS} needs bbox, a list of [x, y, width, height] in pixels, and categories, one per box"


def is_hugging_face_folder(root: Path) -> bool:
    return bool(_files(root))


def has_hugging_face_boxes(root: Path) -> bool:
    return any(f'"{OBJECTS}"'.encode() in file.read_bytes() for file in _files(root))


def _files(root: Path) -> list[Path]:
    places = [root / name for name in FILES] + [
        f / name for f in split_folders(root).values() for name in FILES
    ]
    return [file for file in places if file.is_file()]


def read_hugging_face_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Raises ValueError where a file has no `file_name`, or its columns do not say which is the class."""
    pictures = Pictures(root)
    files = _files(root)
    tables = [read_jsonl(f) if f.suffix == ".jsonl" else read_csv(f, pictures) for f in files]
    for table in tables:
        if NAME not in table.columns:
            raise ValueError(f"{table.file}: no column {NAME}; write the name of each row's picture into it")
    rows = [row for table in tables for row in _rows(table, pictures)]
    found = {path for row in rows for path in pictures.find(row.said, row.split)}
    report_unnamed(pictures, found, files[0], findings.at(task))
    if any(OBJECTS in table.columns for table in tables):
        return _boxes(root, rows, pictures, task, findings)
    info = classes_of(rows, task, files[0])
    splits = labelled_splits(rows, pictures, info, findings)
    return SourceTask(with_names(info, root, findings.at(task)), splits)


def _rows(table: Table, pictures: Pictures) -> list[Labelled]:
    column = OBJECTS if OBJECTS in table.columns else label_column(table, NAME)
    if not column:
        raise ValueError(f"{table.file}: only {NAME}; add label, or {WANTED}")
    folder = pictures.parts(table.file)[:-1]
    rows = []
    for row in table.rows:
        said = "/".join((*folder, str(row.cells.get(NAME, ""))))
        split = (split_said_by(folder[0]) if folder else None) or split_of(said, pictures)
        rows.append(Labelled(where=row.where, said=said, split=split, label=row.cells.get(column)))
    return rows


def _boxes(root: Path, rows: list[Labelled], pictures: Pictures, task: str, findings: Findings) -> SourceTask:
    names = sorted({str(c) for row in rows for c in _categories(row.label)})
    if all(name.isdecimal() for name in names):
        numbered = {int(name): name for name in names}
    else:
        numbered = dict(enumerate(names))
    info = numbered_info(task, "detection", numbered)
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


def _categories(objects: Any) -> list[Any]:
    found = (
        next((objects[key] for key in CATEGORIES if key in objects), [])
        if isinstance(objects, Mapping)
        else []
    )
    return found if isinstance(found, list) else []


def _boxes_of(row: Labelled, info: TaskInfo, path: Path, report: Reporter) -> tuple[Box, ...]:
    boxes = row.label.get("bbox") if isinstance(row.label, Mapping) else None
    classes = _categories(row.label)
    if not isinstance(boxes, list) or len(boxes) != len(classes) or not all(map(is_box, boxes)):
        report.add("annotation", f"{row.where}: {WANTED}; {FIX_REMEDY}", path, keeps_images=True)
        return ()
    return tuple(
        Box(xyxy=(x, y, x + width, y + height), label=info.class_names.index(str(category)))
        for (x, y, width, height), category in zip(boxes, classes, strict=True)
    )
