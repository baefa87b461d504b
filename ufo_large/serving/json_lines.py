"""A file of JSON lines that is appended to, and whose end a crash may have cut off."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ufo_large.config import parse_json, write_text_whole


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of the file, without a last line that was cut off; none where there is no file.

    Raises ValueError with the number of any other line that is no JSON object.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            entry = parse_json(line, path, "delete the line")
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise ValueError(f"{path}, line {number}: no JSON object; delete the line, or the file")
        found.append(entry)
    return found


def write_lines(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Write the file whole or not at all."""
    write_text_whole(path, "".join(as_line(entry) for entry in entries))


def append_lines(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Write behind the last line, in one call."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(as_line(entry) for entry in entries))


def as_line(entry: dict[str, Any]) -> str:
    text = json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace").decode()  # a path in an error may have other bytes
