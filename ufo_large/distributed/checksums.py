"""Files that are on the disk and are later found as they were written: size and SHA-256."""

import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

SEAL = "sha256"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a file holds: so many bytes, with this SHA-256 in hexadecimal digits."""

    bytes: int
    sha256: str


class StampedFile:
    """Takes what torch.save writes, in order, and hashes it on the way to the file.

    What reaches the disk is compared with the memory that it came from, not with what a later reading found.
    """

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._digest = hashlib.sha256()
        self._bytes = 0
        self.error: OSError | None = None
        """What the disk said: torch.save would tell of a position in the file instead."""

    def write(self, data: Any) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self._digest.update(data)
        self._bytes += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    @property
    def stamp(self) -> Stamp:
        return Stamp(self._bytes, self._digest.hexdigest())


def stamp_of(file: Path) -> Stamp:
    """Read a file from its beginning to its end, a little at a time."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return Stamp(opened.tell(), digest)


def stamp_on_disk(file: Path) -> Stamp:
    """Return what a file holds that another library wrote, once it is on the disk."""
    sync(file)
    return stamp_of(file)


def fault_of(file: Path, stamp: Stamp) -> str:
    """Say how `file` differs from what was written; "" where it does not. Raises OSError."""
    if not file.exists():
        return "is missing"
    if (found := file.stat().st_size) != stamp.bytes:
        return f"has {found} bytes, {stamp.bytes} were written"
    return "" if stamp_of(file) == stamp else "is damaged: its SHA-256 is not that of what was written"


def sealed(body: dict[str, Any]) -> dict[str, Any]:
    """Return `body` with a SHA-256 of itself, for a file that lists those of others."""
    text = json.dumps({key: value for key, value in body.items() if key != SEAL}, sort_keys=True)
    return body | {SEAL: hashlib.sha256(text.encode()).hexdigest()}


def sync(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk, and no more in memory only."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):  # some network disks'
            raise
    finally:
        os.close(opened)


def sync_tree(root: Path) -> None:
    """Put the names in `root` and the folders below it on the disk."""
    for folder in (path for path in root.rglob("*") if path.is_dir()):
        sync(folder)
    sync(root)
