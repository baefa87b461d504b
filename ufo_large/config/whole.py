"""Files that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def write_whole(file: Path) -> Iterator[Path]:
    """Give a place beside `file` to write to; it takes the name when the block ends well, else it goes."""
    unfinished = file.with_name(f"{file.name}.part")
    try:
        yield unfinished
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text_whole(file: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with write_whole(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
