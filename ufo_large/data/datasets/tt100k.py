"""TT100K (Tsinghua-Tencent 100K) as its site hands it out: train/ and test/ with one JSON file.

That is annotations.json, or annotations_all.json of 2021. Pictures of other/ belong to neither split and are
left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ufo_large.config import LARGE_BYTES, read_json
from ufo_large.data.datasets.named_boxes import (
    NamedBox,
    NamedBoxes,
    corners_of,
    named_boxes_source,
    names_of,
    objects_of,
)
from ufo_large.structures import Findings, SourceTask

FILES = ("annotations_all.json", "annotations.json")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
SPLITS = ("train", "test")
FORM = "unpack it again from the site's archive"


def is_tt100k_folder(root: Path) -> bool:
    return _file(root) is not None


def _file(root: Path) -> Path | None:
    """Return the file that has TT100K's two keys."""
    for file in (root / name for name in FILES):
        if file.is_file() and all(key in file.read_bytes() for key in (b'"imgs"', b'"types"')):
            return file
    return None


def read_tt100k_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Classes are those that boxes of train and test have, in the order of `types`."""
    file = _file(root)
    content = read_json(file, FORM, finite=False, limit=LARGE_BYTES)
    images, types = (content.get("imgs"), content.get("types")) if isinstance(content, dict) else (None, None)
    if not isinstance(images, dict) or not isinstance(types, list):
        raise ValueError(f"{file}: `imgs` is no object or `types` no list; {FORM}")
    if strange := next((number for number, image in images.items() if not isinstance(image, dict)), None):
        raise ValueError(f"{file}: image {strange} is no object; {FORM}")
    entries = {split: list(_entries(root, file, images, split)) for split in SPLITS}
    entries = {split: found for split, found in entries.items() if found}
    used = names_of(entries)
    names = [name for name in types if isinstance(name, str) and name in used]
    return named_boxes_source(task, names, entries, findings)


def _entries(root: Path, file: Path, images: dict[str, Any], split: str) -> Iterator[NamedBoxes]:
    for number, image in images.items():
        path = str(image.get("path", ""))
        if path.startswith(f"{split}/"):
            objects = objects_of(image, "objects", file, FORM)
            boxes = [
                NamedBox(name=o.get("category"), corners=corners_of(o.get("bbox"), CORNERS)) for o in objects
            ]
            where, name = f"{file}: image {number}", path.removeprefix(f"{split}/")
            yield NamedBoxes(where=where, folder=root / split, name=name, boxes=boxes)
