"""Which class a row of a table says: by the column of classes, or by one column of 0 and 1 per class."""

from typing import Any

from ufo_large.data.datasets.tables import LABEL_NAMES, Row, Table, label_column, other_columns

ZERO, ONE = ("0", "0.0"), ("1", "1.0")


def row_labels(table: Table, pictures: str) -> list[Any] | None:
    """Return the class of each row, None where there is no column beside that of `pictures`.

    Raises ValueError where it is not clear which column says the class, or a row has not just one 1.
    """
    if columns := _class_columns(table, pictures):
        return [_marked(row, columns, pictures) for row in table.rows]
    column = label_column(table, pictures)
    return table.values(column) if column else None


def _class_columns(table: Table, pictures: str) -> list[str]:
    """Return the columns of 0 and 1 where there are several and no other; empty where they are no classes."""
    others = other_columns(table, pictures)
    if len(others) < 2 or any(column.lower() in LABEL_NAMES for column in others):
        return []
    known = {*ZERO, *ONE}
    return others if all(str(v) in known for column in others for v in table.values(column)) else []


def _marked(row: Row, columns: list[str], pictures: str) -> str:
    found = [column for column in columns if str(row.cells.get(column)) in ONE]
    if len(found) != 1:
        told = (
            f"{row.where}: {len(found)} classes of {row.cells.get(pictures)} ({', '.join(found) or 'none'})"
        )
        wanted = f"of the columns {', '.join(columns)}, one class per picture is read"
        raise ValueError(f"{told}; {wanted}: write a 1 into one of them, or the class into a column label")
    return found[0]
