"""Tables that name pictures: a CSV with a header or without, or JSON lines, and which column says what."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from ufo_large.config import parse_json
from ufo_large.data.datasets.base import IMAGE_SUFFIXES
from ufo_large.data.datasets.split_names import SPLIT_NAMES, split_said_by
from ufo_large.data.datasets.walk import files_below

SUFFIXES = (".csv", ".tsv")
DELIMITERS = ",;\t"
LABEL_NAMES = ("label", "labels", "class", "class_name", "classname", "category", "target")
ROW_NUMBER = re.compile(r"(unnamed: 0|index|)")  # as pandas writes one
REMEDY = "correct it, or move it out"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `where` is its file and line."""

    where: str
    cells: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    file: Path
    columns: tuple[str, ...]
    rows: list[Row]

    def values(self, column: str) -> list[Any]:
        return [row.cells.get(column) for row in self.rows]


@dataclass(slots=True)
class Pictures:
    """The pictures below a folder, found by the names that tables have for them."""

    place: Path
    paths: list[Path] = field(init=False)
    by_name: dict[str, list[Path]] = field(init=False)

    def __post_init__(self):
        self.paths = [p for p in files_below(self.place) if p.suffix.lower() in IMAGE_SUFFIXES]
        self.by_name = defaultdict(list)
        for path in self.paths:
            for name in self.names(path):
                self.by_name[name].append(path)

    def names(self, path: Path) -> set[str]:
        """Return what a picture is found by: its name and stem, also with the name of its folder."""
        own = {path.name, path.stem}
        return own | {f"{path.parent.name}/{name}" for name in own}

    def parts(self, path: Path) -> tuple[str, ...]:
        return path.relative_to(self.place).parts

    def find(self, cell: Any, split: str = "") -> list[Path]:
        """Return the pictures that a cell may mean: by name or stem, then its folders, then the split."""
        said = PurePosixPath(str(cell).strip().replace("\\", "/"))
        found = self.by_name.get(f"{said.parent.name}/{said.name}") or self.by_name.get(said.name, [])
        shared = [_shared_folders(p, said) for p in found]
        most = max(shared, default=0)
        found = [p for p, count in zip(found, shared, strict=True) if count == most]
        in_split = [p for p in found if split in map(split_said_by, self.parts(p)[:-1])]
        return in_split if len(found) > 1 and in_split else found


def _shared_folders(path: Path, said: PurePosixPath) -> int:
    """Return how many folders the ends of two paths have in common; tables tell paths of other machines."""
    pairs = zip(reversed(path.parent.parts), reversed(said.parent.parts), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def read_csv(file: Path, pictures: Pictures) -> Table:
    """Read a table; its first row is the header, except where it names a picture itself.

    Raises ValueError for what is no table of text.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            first = opened.readline()
            opened.seek(0)
            lines = list(csv.reader(opened, delimiter=max(DELIMITERS, key=first.count)))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read as a table ({error}); {REMEDY}") from None
    numbered = [(number, cells) for number, cells in enumerate(lines, 1) if any(c.strip() for c in cells)]
    if not numbered:
        return Table(file, (), [])
    header = [cell.strip() for cell in numbered[0][1]]
    if any(pictures.find(cell) for cell in header):
        header = [f"column {i}" for i in range(1, len(header) + 1)]
    else:
        numbered = numbered[1:]
    rows = [
        Row(f"{file}:{number}", dict(zip(header, (c.strip() for c in cells), strict=False)))
        for number, cells in numbered
    ]
    return Table(file, tuple(header), rows)


def read_jsonl(file: Path) -> Table:
    """Read JSON lines. Raises ValueError that names the line which is no JSON object."""
    rows, columns = [], {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        cells = parse_json(line, f"{file}:{number}", REMEDY)
        if not isinstance(cells, dict):
            raise ValueError(f"{file}:{number}: no JSON object; {REMEDY}")
        columns |= dict.fromkeys(cells)
        rows.append(Row(f"{file}:{number}", cells))
    return Table(file, tuple(columns), rows)


def picture_column(table: Table, pictures: Pictures) -> str:
    """Return the column that names pictures, empty where none does.

    It is the one with most of them; of several with as many, those with file endings, then those whose
    values are all different (numbers may name pictures and classes). Raises ValueError where several stay.
    """
    hits = {c: sum(bool(v) and bool(pictures.find(v)) for v in table.values(c)) for c in table.columns}
    most = max(hits.values(), default=0)
    if not most or 2 * most < min(len(table.rows), len(pictures.paths)):
        return ""
    best = [column for column, count in hits.items() if count == most]
    for better in (_has_endings, _all_different):
        best = [c for c in best if better(table.values(c))] or best
    if len(best) > 1:
        told = f"the columns {', '.join(best)} name the same pictures"
        raise ValueError(f"{table.file}: {told}; take all but one out")
    return best[0]


def _has_endings(values: Iterable[Any]) -> bool:
    return any(str(value).lower().endswith(IMAGE_SUFFIXES) for value in values)


def _all_different(values: list[Any]) -> bool:
    return len(set(map(str, values))) == len(values)


def split_column(table: Table) -> str:
    """Return the column that says train, val or test in every row, empty where none does."""
    for column in table.columns:
        values = table.values(column)
        if values and all(isinstance(v, str) and v.lower() in SPLIT_NAMES for v in values):
            return column
    return ""


def other_columns(table: Table, pictures: str) -> list[str]:
    """Return the columns that may say the class: neither pictures nor splits nor numbers of rows."""
    others = [c for c in table.columns if c not in (pictures, split_column(table))]
    return [c for c in others if not ROW_NUMBER.fullmatch(c.lower())]


def label_column(table: Table, pictures: str) -> str:
    """Return the column of classes: the only one beside `pictures`, or the only one with a usual name.

    Empty where there is no other column. Raises ValueError with the candidates where there are several.
    """
    others = other_columns(table, pictures)
    named = [c for c in others if c.lower() in LABEL_NAMES]
    if len(others) > 1 and len(named) != 1:
        shown = [f"{c} ({len(set(map(str, table.values(c))))} values)" for c in named or others]
        told = f"the class of a picture may be in {', '.join(shown)}"
        raise ValueError(f"{table.file}: {told}; name that column label, or take the others out")
    return (named or others or [""])[0]


def split_of(said: str | None, pictures: Pictures) -> str:
    """Return the split that the folders of a picture say, else train."""
    found = {s for path in pictures.find(said) for s in map(split_said_by, pictures.parts(path)[:-1]) if s}
    return found.pop() if len(found) == 1 else "train"
