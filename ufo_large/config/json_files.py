"""Read and write the JSON files of a run's folder."""

import json
from pathlib import Path
from typing import Any

from ufo_large.config.whole import write_text_whole


def read_json(file: Path, remedy: str) -> Any:
    """Return what `file` holds; ValueError with the file's name and `remedy` where that is no JSON."""
    content = file.read_bytes()
    try:
        return json.loads(content)
    except ValueError as error:  # also bytes that are no UTF-8
        said = error if content.strip() else "it is empty"
        raise ValueError(f"{file}: not JSON ({said}); {remedy}") from error


def write_json(file: Path, value: Any, allow_nan: bool = True) -> None:
    """Write the file whole or not at all. `allow_nan=False` refuses nan and infinity with ValueError."""
    write_text_whole(file, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=allow_nan) + "\n")
