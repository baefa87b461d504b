"""Whether a folder can be written, asked before the work and not after it; who may read what was written."""

import os
from pathlib import Path


def require_writable(folder: str | Path, option: str) -> None:
    """Raise ValueError that names `option` where `folder` is not there and cannot be made, or is read-only.

    Writes nothing.
    """
    folder = Path(folder)
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"{folder}: {there} is a file, not a folder; choose another {option}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: {there} may not be written; choose another {option}, or its permissions")


def give_usual_rights(path: Path) -> None:
    """Give a file or folder the rights that the umask leaves to new ones.

    safetensors and tempfile leave what they make to its owner alone.
    """
    mask = os.umask(0o077)  # there is no other way to ask
    os.umask(mask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
