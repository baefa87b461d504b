"""data.yaml of a YOLO data set, as Ultralytics and Roboflow write it.

path: ../datasets/signs     # the folder of the others, if it lies below this file; else this file's own
train: images/train         # a folder, a list of files in a .txt, or a YAML list of such
val: ../valid/images        # Roboflow's "../", which means this file's folder
names: [stop, limit]        # or numbers with names
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ufo_large.config import outside, require_inside
from ufo_large.data.datasets.split_names import SPLIT_NAMES
from ufo_large.data.shard_index import SPLITS

MARKER = b"names:"
USUAL = "data.yaml"
NAMES_REMEDY = "names: write a list, or numbers with names"


@dataclass(frozen=True, kw_only=True, slots=True)
class YoloSet:
    """What a data.yaml says. `splits`: the folders and lists of each split; `root`: the file's folder."""

    root: Path
    splits: dict[str, list[Path]]
    names: dict[int, str]
    has_key_points: bool


def yaml_files(root: Path) -> list[Path]:
    """Return the YAML files in a folder that list class names; data.yaml alone where it is one of them."""
    files = sorted(p for p in root.iterdir() if p.suffix.lower() in (".yaml", ".yml") and p.is_file())
    found = [p for p in files if any(line.startswith(MARKER) for line in p.read_bytes().splitlines())]
    return [p for p in found if p.name == USUAL] or found


def read_yaml(root: Path) -> YoloSet:
    """Read the one that a folder has. Raises ValueError that names the file, the key and the remedy."""
    file, *more = yaml_files(root)
    if more:
        shown = ", ".join(path.name for path in (file, *more))
        raise ValueError(f"{root}: {shown}: each describes a YOLO data set; keep one, or name it {USUAL}")
    try:
        said = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not YAML of plain values ({error}); correct it") from None
    if not isinstance(said, dict):
        raise ValueError(f"{file}: no keys with values; write train: and names:")
    base = _base(root, said.get("path"))
    stated = {SPLIT_NAMES[key]: said[key] for key in SPLIT_NAMES if said.get(key) is not None}
    if not stated:
        raise ValueError(f"{file}: no train, val or test; write train: images/train and so on")
    splits = {split: _places(file, base, split, stated[split]) for split in SPLITS if split in stated}
    names = _names(file, said.get("names"), said.get("nc"))
    return YoloSet(root=root, splits=splits, names=names, has_key_points="kpt_shape" in said)


def _base(root: Path, path: Any) -> Path:
    """`path` says where the data lay when it was written: it counts where it leads below `root`."""
    inside = isinstance(path, str) and not outside(path)
    return root / path if inside and (root / path).is_dir() else root


def _places(file: Path, base: Path, split: str, value: Any) -> list[Path]:
    entries = value if isinstance(value, list) else [value]
    if not entries or not all(isinstance(entry, str) for entry in entries):
        raise ValueError(f"{file}: {split}: {value!r} is no path or list of paths; write images/{split}")
    places = []
    for entry in entries:
        place = place_inside(base, entry, file)
        if not place.exists():
            told = f"{file}: {split}: no {place.relative_to(file.parent)} in {file.parent}"
            raise ValueError(f"{told}; put it there, or take the line out")
        places.append(place)
    return places


def place_inside(base: Path, entry: str, stated_in: str | Path) -> Path:
    """Return the place that an entry means; ValueError where it lies outside of `base`.

    Roboflow writes ../train/images for train/images, as if the file lay in a folder beside.
    """
    path = Path(entry)
    if path.is_absolute() and path.is_relative_to(base.absolute()):
        entry = str(path.relative_to(base.absolute()))  # may still climb: is_relative_to does not look at ..
    shifted = base / entry.removeprefix("../")
    if entry.startswith("../") and not outside(entry.removeprefix("../")) and shifted.exists():
        return shifted
    return require_inside(base, entry, stated_in)


def _names(file: Path, names: Any, count: Any) -> dict[int, str]:
    numbered = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(numbered, dict) or not numbered or not all(type(key) is int for key in numbered):
        raise ValueError(f"{file}: {NAMES_REMEDY}, for instance names: [stop, limit]")
    numbered = {number: str(name) for number, name in numbered.items()}
    name, times = Counter(numbered.values()).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{file}: {name!r} stands twice in names; name them apart")
    if count not in (None, len(numbered)):
        raise ValueError(f"{file}: nc is {count}, but names lists {len(numbered)}; make them agree")
    return numbered
