"""Classification by a table (CSV, TSV) of names and classes beside pictures, as Kaggle hands data out.

The class is in one column, or each class has a column of 0 and 1. train.csv, val.csv and test.csv are splits,
and so are the folders of pictures (train_images/) and a column of train, val and test; else all is train.
Pictures in a test folder that no table names have no ground truth.
"""

import re
from collections import defaultdict
from pathlib import Path

from ufo_large.data.datasets.labelled_pictures import (
    Labelled,
    classes_of,
    labelled_splits,
    report_unnamed,
    with_names,
)
from ufo_large.data.datasets.row_labels import row_labels
from ufo_large.data.datasets.split_names import split_folders, split_said_by
from ufo_large.data.datasets.tables import (
    SUFFIXES,
    Pictures,
    Table,
    picture_column,
    read_csv,
    split_column,
    split_of,
)
from ufo_large.structures import Findings, SourceTask

PART = re.compile(r".*(parts?|batch|chunk|archive|images?|imgs?|pictures|photos|folder|fold)[-_ ]?\d*", re.I)
BOX_COLUMNS = re.compile(r"x_?min|x1|bbox|box|xmax|bounding_?box", re.I)
NO_DATA = "submission"  # Kaggle's sample_submission.csv has invented classes
METADATA = "metadata.csv"  # Hugging Face's


def is_table_folder(root: Path) -> bool:
    """True where a table names the pictures and their folders are no classes."""
    if not (files := table_files(root)):
        return False
    pictures = Pictures(root)
    if folders_of_classes(pictures):
        return False
    tables = _naming(files, pictures)
    return bool(tables) and not any(_says_the_folders(table, named, pictures) for table, named in tables)


def _says_the_folders(table: Table, named: str, pictures: Pictures) -> bool:
    """True where a column has the names of the pictures' folders, which are the classes then."""
    found = [(pictures.find(row.cells.get(named)), row.cells) for row in table.rows]
    pairs = [(paths[0].parent.name, cells) for paths, cells in found if len(paths) == 1]
    columns = [column for column in table.columns if column != named]
    return any(all(cells.get(column) == folder for folder, cells in pairs) for column in columns)


def table_files(root: Path) -> list[Path]:
    places = (root, *split_folders(root).values())
    files = [p for place in places for p in sorted(place.iterdir()) if p.suffix.lower() in SUFFIXES]
    return [p for p in files if p.is_file() and NO_DATA not in p.name.lower() and p.name != METADATA]


def folders_of_classes(pictures: Pictures) -> set[str]:
    """Return the folders that hold pictures, if they may be classes: not one alone, no splits or parts."""
    names = {parts[-2] for parts in map(pictures.parts, pictures.paths) if len(parts) > 1}
    loose = {name for name in names if not split_said_by(name) and not PART.fullmatch(name)}
    return names if len(loose) > 1 else set()


def _naming(files: list[Path], pictures: Pictures) -> list[tuple[Table, str]]:
    """Return the tables that name pictures, with the column that does."""
    tables = [read_csv(file, pictures) for file in files]
    found = [(table, picture_column(table, pictures)) for table in tables]
    return [(table, column) for table, column in found if column]


def read_table_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Raises ValueError where a table's columns do not say which is the class, with the candidates."""
    pictures = Pictures(root)
    tables = _naming(table_files(root), pictures)
    rows = [row for table, column in tables for row in _rows(table, column, pictures)]
    _refuse_two_of_a_split(rows)
    file = tables[0][0].file
    named = {path for row in rows for path in pictures.find(row.said, row.split)}
    if "test" not in {row.split for row in rows}:
        rows += _unnamed_test(pictures, named)
    info = classes_of(rows, task, file)
    report_unnamed(pictures, [*named, *_test_paths(pictures)], file, findings.at(task))
    splits = labelled_splits(rows, pictures, info, findings)
    return SourceTask(with_names(info, root, findings.at(task)), splits)


def _rows(table: Table, named: str, pictures: Pictures) -> list[Labelled]:
    if boxes := [column for column in table.columns if BOX_COLUMNS.fullmatch(column)]:
        told = f"{table.file}: boxes in a table (column {boxes[0]}) are not read"
        raise ValueError(f"{told}; write them as COCO, in annotations/instances_<split>.json")
    labels, split = row_labels(table, named), split_column(table)
    of_table = split_said_by(table.file.stem) or split_said_by(pictures.parts(table.file.parent / "-")[0])
    if labels is None and of_table != "test":
        raise ValueError(f"{table.file}: names pictures, but no column says their class; add a column label")
    rows = []
    for row, label in zip(table.rows, labels or [None] * len(table.rows), strict=True):
        said = row.cells.get(named)
        of_row = split_said_by(row.cells[split]) if split else of_table or split_of(said, pictures)
        rows.append(Labelled(where=row.where, said=said, split=of_row, label=label))
    return rows


def _refuse_two_of_a_split(rows: list[Labelled]) -> None:
    files: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        files[row.split].add(row.where.rpartition(":")[0])
    for split, named in files.items():
        if len(named) > 1:
            raise ValueError(f"{', '.join(sorted(named))}: each names pictures of {split}; keep one")


def _test_paths(pictures: Pictures) -> list[Path]:
    return [p for p in pictures.paths if "test" in map(split_said_by, pictures.parts(p)[:-1])]


def _unnamed_test(pictures: Pictures, named: set[Path]) -> list[Labelled]:
    paths = [p for p in _test_paths(pictures) if p not in named]
    return [Labelled(where=str(p), said="/".join(pictures.parts(p)), split="test") for p in paths]
