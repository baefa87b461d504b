"""Tables beside folders of pictures that say other labels than the folders' names, and tables not read."""

from pathlib import Path

from ufo_large.data.datasets.split_names import split_folders
from ufo_large.data.datasets.table_folder import table_files
from ufo_large.data.datasets.tables import Pictures, Table, picture_column, read_csv

IN_FOLDERS = "put them into a folder per class, and move the table out if the folders are the classes"
AS_FILES = "write a metadata.jsonl that names the pictures and their label, and move it out"


def unread_tables(root: Path) -> str:
    """Return which table says the labels of the pictures, with the remedy; empty where none is found."""
    for place in (root, root / "data", *split_folders(root).values()):
        if file := next(iter(sorted(place.glob("*.parquet"))), None):
            return f"{file}: Parquet without a column of pictures is not read; {AS_FILES}"
    files = table_files(root)
    pictures = Pictures(root) if files else None
    for table in (read_csv(file, pictures) for file in files):
        named = picture_column(table, pictures)
        if named and len(table.columns) > 1 and (folder := _folder_labelled_by(table, named, pictures)):
            return (
                f"{table.file}: a table that names the pictures of {folder}, which is not read; {IN_FOLDERS}"
            )
    return ""


def _folder_labelled_by(table: Table, named: str, pictures: Pictures) -> str:
    """Return a folder whose pictures the table names; empty where a column says what the folders say."""
    found = [(pictures.find(row.cells.get(named)), row) for row in table.rows]
    pairs = [(paths[0].parent.name, row) for paths, row in found if len(paths) == 1]
    folders = [folder for folder, _ in pairs]
    columns = ([str(row.cells.get(c)) for _, row in pairs] for c in table.columns if c != named)
    return "" if not folders or any(_agree(folders, column) for column in columns) else folders[0]


def _agree(folders: list[str], column: list[str]) -> bool:
    """True where a column has the folders' names, or one value per folder, as numbered classes have."""
    pairs = set(zip(folders, column, strict=True))
    one_each = len(pairs) == len(set(folders)) == len(set(column)) > 1
    return one_each or all(folder == value for folder, value in pairs)
