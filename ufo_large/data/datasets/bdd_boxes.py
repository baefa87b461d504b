"""BDD100K's boxes as its site hands them out: images/100k/<split>/ and a JSON list of pictures per split.

labels/det_20/det_<split>.json, or (before 2020) labels/bdd100k_labels_images_<split>.json. A picture without
`labels` shows no object; lanes and areas, which have no box2d, are left out. As in BDD100K's own scoring,
boxes of the classes that it does not score count as crowds of the nearest class that it does.
The files list 69,863 of the 70,000 pictures of train: so few unlisted ones are left out, more are reported.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ufo_large.config import LARGE_BYTES, read_json
from ufo_large.data.datasets.base import list_images
from ufo_large.data.datasets.named_boxes import (
    NamedBox,
    NamedBoxes,
    corners_of,
    named_boxes_source,
    names_of,
    objects_of,
)
from ufo_large.data.shard_index import SPLITS
from ufo_large.structures import FIX_REMEDY, Example, Findings, Reporter, SourceTask

IMAGES, MASKS = "images/100k", "labels/sem_seg"
FILES = ("labels/det_20/det_{}.json", "labels/bdd100k_labels_images_{}.json")
CORNERS = ("x1", "y1", "x2", "y2")
IGNORED = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}
UNLISTED = 0.005  # of the pictures of a split; the site's train has 0.002
PER_PICTURE = "labels/100k"
FORM = "unpack it again from the site's archive"


def is_bdd_boxes_folder(root: Path) -> bool:
    return (root / IMAGES).is_dir() and (bool(_files(root)) or (root / PER_PICTURE).is_dir())


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


def a_file_per_picture(root: Path) -> str:
    if _files(root):
        return ""
    told = f"{root / PER_PICTURE}: BDD100K's first labels, a file per picture, are not read"
    return f"{told}; take its Detection 2020 Labels, {FILES[0].format('train')}"


def read_bdd_boxes_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Classes are the categories of boxes, sorted by name. A test folder without a file is unlabelled."""
    entries = {}
    for split, file in _files(root).items():
        content = read_json(file, FORM, finite=False, limit=LARGE_BYTES)
        if not isinstance(content, list) or not all(isinstance(image, dict) for image in content):
            raise ValueError(f"{file}: no list of pictures; {FORM}")
        entries[split] = list(_entries(root / IMAGES / split, file, content))
        _report_unlisted(root / IMAGES / split, file, entries[split], findings.at(task, split))
    names = sorted(names_of(entries))
    source = named_boxes_source(task, names, entries, findings)
    if "test" not in entries and (unlabeled := list_images(root / IMAGES / "test")):
        source.splits["test"] = [
            Example(image=path, file_name=name, image_id=number, where=str(path))
            for number, (name, path) in enumerate(unlabeled.items(), 1)
        ]
    return source


def _report_unlisted(folder: Path, file: Path, entries: list[NamedBoxes], report: Reporter) -> None:
    images, listed = list_images(folder), {entry.name for entry in entries}
    unlisted = [path for name, path in images.items() if name not in listed]
    if len(unlisted) > UNLISTED * len(images):
        for path in unlisted:
            told = f"{path}: not in {file.name}, so its objects are unknown; {FIX_REMEDY}"
            report.add("missing", told, path)


def _entries(folder: Path, file: Path, content: list[dict[str, Any]]) -> Iterator[NamedBoxes]:
    for image in content:
        labels = objects_of(image, "labels", file, FORM)
        boxes = [_box(label) for label in labels if label.get("box2d")]
        name = image.get("name")
        yield NamedBoxes(where=f"{file}: {name}", folder=folder, name=name, boxes=boxes)


def _box(label: dict[str, Any]) -> NamedBox:
    name, attributes = label.get("category"), label.get("attributes")
    ignored = isinstance(name, str) and name in IGNORED
    crowd = isinstance(attributes, dict) and attributes.get("crowd") is True
    return NamedBox(
        name=IGNORED[name] if ignored else name,
        corners=corners_of(label["box2d"], CORNERS),
        crowd=ignored or crowd,
    )
