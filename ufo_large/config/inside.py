"""Paths that a file states of other files: they stay below the folder that they are relative to.

Data sets, shards and run folders come from other people. A path in them must not make this machine read,
write or remove anything else.
"""

import os
from pathlib import Path, PurePosixPath
from typing import Any

LONGEST_PART, LONGEST_PATH = 255, 4000
"""Bytes that Linux takes, less what the folder's own path may have."""
REMEDY = "write the path relative to its folder, without '..' and without a leading '/'"


def outside(name: Any) -> str:
    """Return why `name` is no path of a file below a folder, and the remedy; "" where it is one.

    Looks at the text alone: a user's own symbolic links may lead anywhere.
    """
    if not isinstance(name, str):
        return f"is no text; {REMEDY}"
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return f"leads out of its folder; {REMEDY}"
    if not _can_be_path(path):
        return f"can be no file's path, by its length or its characters; {REMEDY}"
    return "" if path.parts else f"names no file; {REMEDY}"


def _can_be_path(path: PurePosixPath) -> bool:
    try:
        sizes = [len(os.fsencode(part)) for part in path.parts]
    except UnicodeEncodeError:
        return False
    return "\0" not in str(path) and max(sizes, default=0) <= LONGEST_PART and sum(sizes) <= LONGEST_PATH


def require_inside(folder: Path, name: Any, stated_in: str | Path, links: bool = True) -> Path:
    """Return `folder / name`; ValueError that names the file `stated_in` where it is not below `folder`.

    `links`: symbolic links may lead out of the folder, as in a user's data. Pass False where only this
    library writes files, which are never links.
    """
    if told := outside(name):
        raise ValueError(f"{stated_in}: {name!r} {told}")
    path = folder / name
    if not links and not (target := path.resolve()).is_relative_to(folder.resolve()):
        raise ValueError(
            f"{stated_in}: {name!r} is a link to {target}, outside of {folder}; put a file there"
        )
    return path
