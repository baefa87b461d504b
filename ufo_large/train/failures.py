"""The failure of one rank, told by all: the others only see that a connection closes, and know no reason."""

import contextlib
import platform
import re
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from ufo_large.config import write_text_whole
from ufo_large.data.errors import DataError
from ufo_large.distributed import comm

FILES = "failed-rank-{}.txt"
WAIT_S = 3.0
LOST = re.compile(r"gloo|nccl|connection|peer|broken pipe|timed out", re.IGNORECASE)


class OtherRankFailed(DataError):
    """Another rank failed first; the message has its words, and where the rest of them lies."""


@contextlib.contextmanager
def told_by_all_ranks(workdir: Path) -> Iterator[None]:
    """Note in RUN/failed-rank-<rank>.txt what fails inside; on all ranks.

    A rank that only lost the connection raises OtherRankFailed with what the failed one noted.
    """
    if comm.is_main():
        for old in workdir.glob(FILES.format("*")):
            old.unlink()
    comm.barrier()
    try:
        yield
    except (comm.AgreedError, FloatingPointError):
        raise  # on all ranks, and told by the first
    except Exception as error:
        if comm.world_size() == 1:
            raise
        if not is_lost_connection(error):
            note(workdir, error)
            raise
        if noted := first_noted(workdir):
            raise OtherRankFailed(noted) from error
        error.add_note(
            "another rank is gone and left no message: it was killed (where memory runs out, dmesg tells), "
            "or its machine is not there any more. --resume auto goes on from the last checkpoint"
        )
        raise


def is_lost_connection(error: Exception) -> bool:
    """Whether a collective failed because another rank is gone: torch has no type of its own for that."""
    return isinstance(error, RuntimeError) and LOST.search(str(error)) is not None


def note(workdir: Path, error: Exception) -> None:
    """Write the error's words, then its traceback; a disk that refuses that must not hide the error."""
    words = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    trace = "".join(traceback.format_exception(error))
    text = f"rank {comm.rank()} on {platform.node()} failed: {words}\n\n{trace}"
    with contextlib.suppress(OSError):
        write_text_whole(workdir / FILES.format(comm.rank()), text)


def first_noted(workdir: Path) -> str:
    """Return what the rank said that failed first; empty where none did, also after waiting for the disk."""
    deadline = time.monotonic() + WAIT_S
    while not (found := sorted(workdir.glob(FILES.format("*")), key=lambda file: file.stat().st_mtime_ns)):
        if time.monotonic() > deadline:
            return ""
        time.sleep(0.1)
    words = found[0].read_text(encoding="utf-8").partition("\n\n")[0]
    return f"{words}\n(its traceback: {found[0]})"
