"""One run at a time trains in a folder: a lock that ends with the process that holds it."""

import contextlib
import fcntl
import os
import platform
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from ufo_large.config import require_writable

FILE_NAME = "run.lock"
_held: set[IO[str]] = set()


def _let_go_in_child() -> None:
    """Close what a forked process inherits: loader workers outlive a killed run, and would keep its lock."""
    while _held:
        _held.pop().close()


os.register_at_fork(after_in_child=_let_go_in_child)


@contextlib.contextmanager
def training_alone(folder: Path, option: str = "--workdir") -> Iterator[None]:
    """Hold the folder that `option` names, which is made where it is missing, while the body runs.

    Raises ValueError that names the holder where another process has it. The lock is the kernel's, on
    `run.lock`: a killed process leaves the file, never the lock. The file goes when the body ends, and so
    does a folder that was made here and in which nothing was written.
    """
    require_writable(folder, option)
    made, path = not folder.exists(), folder / FILE_NAME
    file = _acquire(folder, option)
    _held.add(file)
    try:
        yield
    finally:
        if not file.closed and _is_same(path, file):
            path.unlink()
            if made and not any(folder.iterdir()):
                folder.rmdir()
        _held.discard(file)
        file.close()


def _acquire(folder: Path, option: str) -> IO[str]:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE_NAME).open("a+", encoding="utf-8")
        try:
            _lock(file, folder, option)
            if _is_same(folder / FILE_NAME, file):  # else its holder took it away while we opened it
                file.truncate(0)
                since = datetime.now(UTC).isoformat(timespec="seconds")
                print(f"process {os.getpid()} on {platform.node()} since {since}", file=file, flush=True)
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: IO[str], folder: Path, option: str) -> None:
    try:  # not lockf, whose lock goes when anything in this process opens the file and closes it
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "which has just begun"
        raise ValueError(
            f"{folder}: another run trains here ({holder}); wait for its end, stop it, or give another "
            f"{option}"
        ) from None
    except OSError as error:
        warnings.warn(
            f"{file.name}: this disk locks no files ({error}); let no other run have this {option}",
            stacklevel=2,
        )


def _is_same(path: Path, file: IO[str]) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
