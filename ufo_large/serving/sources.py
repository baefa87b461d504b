"""What a user names to predict: pictures, folders, list files, videos and streams, each with a name."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ufo_large.config import Problems, as_utf8, without_credentials
from ufo_large.config.inside import outside
from ufo_large.data.datasets.base import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mjpeg")
LIST_SUFFIXES = (".txt", ".lst", ".list")
LONGEST_NAME, ENDINGS = 230, "endings are put behind it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A picture or video: where it lies, and its name below the output folder, which is never outside it."""

    path: str
    name: str

    @property
    def mark(self) -> dict[str, Any]:
        """What tells it from another file of its name, and from itself once it has changed."""
        if is_stream(self.path):
            return {"path": without_credentials(self.path)}
        place = os.path.abspath(self.path)
        try:
            stat = os.stat(place)
        except OSError:
            return {"path": as_utf8(place)}
        return {"path": as_utf8(place), "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}


def is_video(path: str | os.PathLike) -> bool:
    """Whether this is a video file, or the address of a stream."""
    return is_stream(path) or Path(path).suffix.lower() in VIDEO_SUFFIXES


def is_stream(path: str | os.PathLike) -> bool:
    return "://" in str(path)


def list_sources(paths: Sequence[str | os.PathLike]) -> list[Found]:
    """Return all pictures and videos of files, folders (with what is below them) and list files, in order.

    Those of a folder are named by their path below it, others as their list names them, or by their file
    name. A list file has one path per line, relative to its own folder. Raises ValueError that lists what is
    not there, and different files that would get the same name.
    """
    problems = Problems("pictures to predict")
    found: dict[str, Found] = {}
    for given in map(str, paths):
        for one in _found_at(given, problems):
            other = found.setdefault(one.name, one)
            if os.path.abspath(other.path) != os.path.abspath(one.path):
                told = without_credentials(f"{other.path} and {one.path}")
                problems.add(
                    f"{told} would both be called {one.name!r}; "
                    "give the folder that holds both, or each its own --out"
                )
            if len(os.fsencode(PurePosixPath(one.name).name)) > LONGEST_NAME:
                problems.add(f"{one.path}: a name of over {LONGEST_NAME} bytes; shorten it, for {ENDINGS}")
    problems.raise_if_any()
    if not found:
        told = f"no picture ({', '.join(IMAGE_SUFFIXES)}) and no video"
        raise ValueError(f"{', '.join(map(str, paths))}: {told}")
    return list(found.values())


def _found_at(given: str, problems: Problems) -> list[Found]:
    path = Path(given)
    if path.is_dir():
        below = sorted(p for p in path.rglob("*") if _is_wanted(p.relative_to(path)) and p.is_file())
        return [Found(path=str(p), name=as_utf8(p.relative_to(path).as_posix())) for p in below]
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        return _found_in_list(path, problems)
    if not is_video(given) and not path.is_file():
        problems.add(f"{given}: no such file or folder; correct the path")
        return []
    return [Found(path=given, name=as_utf8(_plain_name(given)))]


def _is_wanted(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES


def _found_in_list(file: Path, problems: Problems) -> list[Found]:
    """A line whose file is missing is no problem yet: it is one of the pictures that cannot be read."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        problems.add(f"{file}: not UTF-8 text ({error}); save it as UTF-8")
        return []
    named = [line.strip() for line in lines if line.strip()]
    return [
        Found(
            path=line if "://" in line else str(file.parent / line),
            name=_plain_name(line) if outside(line) or "://" in line else PurePosixPath(line).as_posix(),
        )
        for line in named
    ]


def _plain_name(path: str) -> str:
    """Return the last part of a path; of an address the last of its path, else its host, never a user."""
    if not is_stream(path):
        return PurePosixPath(path).name
    address = urlsplit(without_credentials(path))
    name = PurePosixPath(address.path).name or address.hostname or "stream"
    return "stream" if name == ".." else name
