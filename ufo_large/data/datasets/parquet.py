"""Hugging Face's Parquet: pictures as bytes in a column, beside a column of their classes or boxes.

<split>-00000-of-00001.parquet in ROOT or ROOT/data, or <split>/0000.parquet as the hub converts data sets.
The pictures are unpacked into the cache, once; nothing is written among the user's files. Classes have the
names that the features in the file say (ClassLabel), else those of ROOT/classes.txt; -1 means no label.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ufo_large.data.datasets.labelled_pictures import Labelled, classes_of, labelled_splits, with_names
from ufo_large.data.datasets.object_rows import CATEGORIES, OBJECTS, WANTED, object_rows_source
from ufo_large.data.datasets.parquet_files import Columns, cells_of, columns_of, unpacked
from ufo_large.data.datasets.split_names import split_said_by
from ufo_large.data.datasets.tables import Pictures, Row, Table, label_column
from ufo_large.data.datasets.walk import files_below
from ufo_large.structures import Findings, Reporter, SourceTask, numbered_info

NO_LABEL = -1
PARTIAL = "partial-"  # the hub converts the first part of large splits


class _Unpacked(Pictures):
    """Pictures found by their file and row alone: a row without one must not take that of another file."""

    def names(self, path: Path) -> set[str]:
        return {path.relative_to(self.place).with_suffix("").as_posix()}

    def find(self, cell: Any, split: str = "") -> list[Path]:
        return self.by_name.get(str(cell), [])


def is_parquet_folder(root: Path) -> bool:
    """True where a file has a column of pictures."""
    return any(columns_of(file).pictures for file in _files(root))


def has_parquet_boxes(root: Path) -> bool:
    return any(columns.pictures and OBJECTS in columns.others for columns in map(columns_of, _files(root)))


def _files(root: Path) -> list[Path]:
    return [p for p in files_below(root) if p.suffix == ".parquet"]


def read_parquet_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Raises ValueError for several data sets in one folder and for columns that are not clear."""
    splits = _splits(root, findings.at(task))
    columns = columns_of(next(iter(splits)))
    picture = _picture_column(next(iter(splits)), columns)
    pictures = _Unpacked(unpacked(root, list(splits), picture))
    label = _label_column(root, splits, columns, pictures)
    rows = [row for file, split in splits.items() for row in _rows(root, file, split, label, columns)]
    _report_loose(root, findings.at(task))
    if label == OBJECTS:
        names = columns.class_names(OBJECTS, *CATEGORIES)
        return object_rows_source(root, rows, pictures, task, findings, names)
    if names := columns.class_names(label):
        info = numbered_info(task, "classification", dict(enumerate(names)))
    else:
        info = classes_of(rows, task, next(iter(splits)))
    found = labelled_splits(rows, pictures, info, findings)
    return SourceTask(with_names(info, root, findings.at(task)), found)


def _splits(root: Path, report: Reporter) -> dict[Path, str]:
    """Return the split of each file, said by its name or its folder; all are train where none says one."""
    files = [file for file in _files(root) if columns_of(file).pictures]
    _require_equal_columns(files)
    said = {file: _split_said_by(file, root) for file in files}
    homes = {_home(file, root) for file in files}
    outer = [home for home in homes if home == root or home.parent not in homes]
    if len(outer) > 1:
        sets = ", ".join(sorted(home.relative_to(root).as_posix() for home in outer))
        raise ValueError(f"{root}: {sets}: each is a data set of its own; give one of these folders")
    if not any(said.values()):
        return dict.fromkeys(files, "train")
    for file in (file for file in files if not said[file]):
        read = ", ".join(sorted({split for split in said.values() if split}))
        told = f"{file}: not read beside {read}"
        report.add("unread", f"{told}; begin its name with train, val or test, or move it out", file)
    return {file: split for file, split in said.items() if split}


def _require_equal_columns(files: Sequence[Path]) -> None:
    first = columns_of(files[0])
    for file in files[1:]:
        if (found := columns_of(file).pictures) != first.pictures:
            told = f"{file}: pictures in {', '.join(found)}, but in {', '.join(first.pictures)} of {files[0]}"
            raise ValueError(f"{told}; move one of them out")


def _split_said_by(file: Path, root: Path) -> str:
    names = (name.removeprefix(PARTIAL) for name in reversed(file.relative_to(root).parts))
    return next(filter(None, map(split_said_by, names)), "")


def _home(file: Path, root: Path) -> Path:
    """Return the folder of the data set: above those of its splits and above data/."""
    home = file.parent
    while home != root and (home.name == "data" or split_said_by(home.name.removeprefix(PARTIAL))):
        home = home.parent
    return home


def _picture_column(file: Path, columns: Columns) -> str:
    if len(columns.pictures) > 1:
        told = f"{file}: pictures in the columns {', '.join(columns.pictures)}"
        raise ValueError(f"{told}; keep one, and save masks as files, in images/ and masks/")
    return columns.pictures[0]


def _label_column(root: Path, files: Sequence[Path], columns: Columns, pictures: Pictures) -> str:
    if OBJECTS in columns.others:
        return OBJECTS
    named = [column for column in columns.others if columns.class_names(column)]
    if len(named) == 1:
        return named[0]
    file = next(iter(files))
    rows = [Row(str(file), cells) for cells in cells_of(file, named or columns.others)]
    label = label_column(Table(file, tuple(named) or columns.others, rows), "")
    if not label:
        raise ValueError(f"{file}: only pictures; add label, or {WANTED}")
    if any(isinstance(row.cells[label], list) for row in rows):
        raise ValueError(f"{file}: {label} holds several classes per picture; write one class per row")
    return label


def _rows(root: Path, file: Path, split: str, column: str, columns: Columns) -> list[Labelled]:
    names = columns.class_names(column, *CATEGORIES)
    named = _named_objects if column == OBJECTS else _named
    place = file.relative_to(root).with_suffix("").as_posix()
    return [
        Labelled(
            where=f"{file}: row {number}",
            said=f"{place}/{number:06d}",
            split=split,
            label=named(cells.get(column), names),
        )
        for number, cells in enumerate(cells_of(file, [column]), 1)
    ]


def _named(value: Any, names: Sequence[str]) -> Any:
    """Return the name of a numbered class, any other value as it is."""
    if names and value == NO_LABEL:
        return None
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _named_objects(objects: Any, names: Sequence[str]) -> Any:
    """Return objects as lists by key, with the names of classes; `datasets` may write a list of them."""
    if isinstance(objects, list):
        keys = {key for one in objects for key in one} or {"bbox", *CATEGORIES}
        objects = {key: [one.get(key) for one in objects] for key in keys}
    if not isinstance(objects, dict):
        return objects
    named = {key: [_named(v, names) for v in objects[key]] for key in CATEGORIES if objects.get(key)}
    return objects | named


def _report_loose(root: Path, report: Reporter) -> None:
    """Report pictures beside the Parquet files: they would be lost without a word."""
    loose = Pictures(root)
    if names := ["/".join(loose.parts(p)) for p in loose.paths]:
        told = f"{len(names)} pictures beside the Parquet files are not read: {', '.join(names[:5])}"
        report.add("unread", f"{root}: {told}; move them out", root)
