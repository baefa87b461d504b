"""Hugging Face's imagefolder: metadata.jsonl or metadata.csv beside pictures, which it names in `file_name`.

A file in each split's folder, or one in ROOT, where the folders of the pictures say the split. `objects` with
`bbox` ([x, y, width, height] in pixels) and `categories` are boxes; else the one other column is the class.
Numbers of classes have names where ROOT has a classes.txt.
"""

from pathlib import Path

from ufo_large.data.datasets.labelled_pictures import (
    Labelled,
    classes_of,
    labelled_splits,
    report_unnamed,
    with_names,
)
from ufo_large.data.datasets.object_rows import OBJECTS, WANTED, object_rows_source
from ufo_large.data.datasets.row_labels import row_labels
from ufo_large.data.datasets.split_names import split_folders, split_said_by
from ufo_large.data.datasets.tables import Pictures, Table, read_csv, read_jsonl, split_of
from ufo_large.structures import Findings, SourceTask

FILES = ("metadata.jsonl", "metadata.csv")
NAME = "file_name"


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
        return object_rows_source(root, rows, pictures, task, findings)
    info = classes_of(rows, task, files[0])
    splits = labelled_splits(rows, pictures, info, findings)
    return SourceTask(with_names(info, root, findings.at(task)), splits)


def _rows(table: Table, pictures: Pictures) -> list[Labelled]:
    labels = table.values(OBJECTS) if OBJECTS in table.columns else row_labels(table, NAME)
    if labels is None:
        raise ValueError(f"{table.file}: only {NAME}; add label, or {WANTED}")
    folder = pictures.parts(table.file)[:-1]
    rows = []
    for row, label in zip(table.rows, labels, strict=True):
        said = "/".join((*folder, str(row.cells.get(NAME, ""))))
        split = (split_said_by(folder[0]) if folder else None) or split_of(said, pictures)
        rows.append(Labelled(where=row.where, said=said, split=split, label=label))
    return rows
