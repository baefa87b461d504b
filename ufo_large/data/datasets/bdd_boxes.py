"""BDD100K's boxes as its site hands them out: images/100k/<split>/ and a JSON list of pictures per split.

labels/det_20/det_<split>.json, or (before 2020) labels/bdd100k_labels_images_<split>.json. A picture without
`labels` shows no object; lanes and areas, which have no box2d, are left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ufo_large.config import read_json
from ufo_large.data.datasets.base import list_images
from ufo_large.data.datasets.named_boxes import (
    NamedBoxes,
    corners_of,
    named_boxes_source,
    names_of,
    objects_of,
)
from ufo_large.data.shard_index import SPLITS
from ufo_large.structures import FIX_REMEDY, Example, Findings, SourceTask

IMAGES, MASKS = "images/100k", "labels/sem_seg"
FILES = ("labels/det_20/det_{}.json", "labels/bdd100k_labels_images_{}.json")
CORNERS = ("x1", "y1", "x2", "y2")
FORM = "unpack it again from the site's archive"


def is_bdd_boxes_folder(root: Path) -> bool:
    return (root / IMAGES).is_dir() and bool(_files(root))


def _files(root: Path) -> dict[str, Path]:
    places = {split: [root / name.format(split) for name in FILES] for split in SPLITS}
    found = {split: next((p for p in paths if p.is_file()), None) for split, paths in places.items()}
    return {split: file for split, file in found.items() if file}


def masks_beside_boxes(root: Path) -> str:
    """A folder is one task: of boxes and masks in one, the masks would be lost without a word."""
    if not (root / MASKS).is_dir():
        return ""
    told = f"{root}: holds BDD100K's boxes and its masks ({MASKS})"
    return f"{told}; move {MASKS} and images/10k into a folder of their own, and give both"


def read_bdd_boxes_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Classes are the categories of boxes, sorted by name. A test folder without a file is unlabelled."""
    entries = {}
    for split, file in _files(root).items():
        content = read_json(file, FORM)
        if not isinstance(content, list) or not all(isinstance(image, dict) for image in content):
            raise ValueError(f"{file}: no list of pictures; {FORM}")
        entries[split] = list(_entries(root / IMAGES / split, file, content))
        listed = {entry.name for entry in entries[split]}
        for name, path in list_images(root / IMAGES / split).items():
            if name not in listed:
                told = f"{path}: not in {file.name}, so its objects are unknown; {FIX_REMEDY}"
                findings.at(task, split).add("missing", told, path)
    names = sorted(names_of(entries))
    source = named_boxes_source(task, names, entries, findings)
    if "test" not in entries and (unlabeled := list_images(root / IMAGES / "test")):
        source.splits["test"] = [
            Example(image=path, file_name=name, image_id=number, where=str(path))
            for number, (name, path) in enumerate(unlabeled.items(), 1)
        ]
    return source


def _entries(folder: Path, file: Path, content: list[dict[str, Any]]) -> Iterator[NamedBoxes]:
    for image in content:
        boxes = [
            (label.get("category"), corners_of(label["box2d"], CORNERS))
            for label in objects_of(image, "labels", file, FORM)
            if label.get("box2d")
        ]
        name = image.get("name")
        yield NamedBoxes(where=f"{file}: {name}", folder=folder, name=name, boxes=boxes)
