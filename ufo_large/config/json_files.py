"""Read and write the JSON files of a run's folder."""

import json
import os
from pathlib import Path
from typing import Any


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
    unfinished = file.with_name(file.name + ".part")
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=allow_nan)
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, file)
