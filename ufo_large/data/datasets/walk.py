"""All files below a folder of the user's, whichever layout it has."""

import os
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """Return the files below `folder` in order, linked folders included, what is hidden left out."""
    found: list[Path] = []
    seen = {os.path.realpath(above) for above in folder.absolute().parents}
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in names if not name.startswith(".")]
        # links last: what is there twice has the name of the folder itself, on every disk
        links = [(os.path.islink(os.path.join(place, name)), name) for name in folders if name[0] != "."]
        folders[:] = [name for _, name in sorted(links)]
    return sorted(found)
