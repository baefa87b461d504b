"""All files below a folder of the user's, whichever layout it has."""

import os
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """Return the files below `folder` in order, linked folders included, what is hidden left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            found += [Path(place, name) for name in names if not name.startswith(".")]
        seen.add(real)
    return sorted(found)
