"""Files that appear whole or not at all, and what is told of a disk that has no room for them."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def write_whole(file: Path) -> Iterator[Path]:
    """Give a place beside `file` to write to; it takes the name when the block ends well, else it goes."""
    unfinished = file.with_name(f"{file.name}.part")
    try:
        with telling_full_disk(file):
            yield unfinished
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text_whole(file: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    content = text.encode()
    with write_whole(file) as unfinished, telling_full_disk(file, len(content)):
        unfinished.write_bytes(content)


@contextlib.contextmanager
def held(lock_file: Path, strict: bool = True) -> Iterator[None]:
    """Let one process after the other run the block; `lock_file` stays.

    A disk that locks no files raises OSError; where not `strict`, nobody waits there.
    """
    with open(lock_file, "w") as lock:
        with contextlib.nullcontext() if strict else contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def telling_full_disk(file: Path, wanted: int | None = None) -> Iterator[None]:
    """Note on the OSError of a full disk what did not fit; see `note_full_disk`."""
    try:
        yield
    except OSError as error:
        note_full_disk(error, file, wanted)
        raise


def note_full_disk(error: OSError, file: Path, wanted: int | None) -> None:
    """Note on the error of a full disk or quota the file, the bytes `wanted` so far and those free.

    The error stays what it is; any other one, and one that has such a note, is left alone.
    """
    if error.errno in FULL and not getattr(error, "__notes__", None):
        size = "" if wanted is None else f" {wanted:,} bytes were wanted,"
        error.add_note(f"disk full: {file}:{size} {shutil.disk_usage(file.parent).free:,} bytes are free")
