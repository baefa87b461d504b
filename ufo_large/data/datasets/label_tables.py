"""Tables beside folders of pictures that say other labels than the folders' names."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ufo_large.data.datasets.base import list_images
from ufo_large.data.datasets.split_names import split_folders, subfolders

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
TABLES = {".csv": ",", ".tsv": "\t"}
REMEDY = "put them into a folder per class, and move the table out if the folders are the classes"


def unread_tables(root: Path) -> str:
    """Return which table says the labels of the pictures, with the remedy; empty where none is found."""
    for place in (root, *split_folders(root).values()):
        for file in (place / name for name in METADATA):
            if file.is_file():
                return f"{file}: annotations of Hugging Face's imagefolder, which are not read yet; {REMEDY}"
        for table in sorted(p for p in place.iterdir() if p.suffix.lower() in TABLES and p.is_file()):
            if folder := _folder_labelled_by(table):
                return (
                    f"{table}: a table that names the pictures of {folder}, which is not read yet; {REMEDY}"
                )
    return ""


def _folder_labelled_by(table: Path) -> str:
    """Return a folder whose pictures the table names; empty where a column says what the folders say."""
    try:
        named = list(_named(table))
    except csv.Error as error:
        raise ValueError(
            f"{table}: cannot be read as a table ({error}); correct it, or move it out"
        ) from None
    if not named:
        return ""
    folders = [folder for folder, _ in named]
    columns = zip(*(cells for _, cells in named), strict=False)
    return "" if any(_agree(folders, column) for column in columns) else folders[0]


def _named(table: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (folder, the other cells) of each row that names a picture of one folder beside the table."""
    owners: dict[str, set[str]] = defaultdict(set)
    for folder in [table.parent, *subfolders(table.parent)]:
        for name in list_images(folder):
            owners[name].add(folder.name)
            owners[Path(name).stem].add(folder.name)
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        for cells in csv.reader(file, delimiter=TABLES[table.suffix.lower()]):
            for i, path in enumerate(map(Path, cells)):
                folder = owners.get(path.name, set())
                folder = folder & {path.parent.name} or folder
                if len(folder) == 1 and len(cells) > 1:
                    yield next(iter(folder)), cells[:i] + cells[i + 1 :]
                    break


def _agree(folders: list[str], column: tuple[str, ...]) -> bool:
    """True where a column has the folders' names, or one value per folder, as numbered classes have."""
    pairs = set(zip(folders, column, strict=True))
    one_each = len(pairs) == len(set(folders)) == len(set(column)) > 1
    return one_each or all(folder == value for folder, value in pairs)
