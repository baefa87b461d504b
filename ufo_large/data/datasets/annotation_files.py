"""Annotations in forms that are not read (LabelMe), or in places they are not read from (YOLO, COCO, VOC).

Their pictures often lie in folders that look like classes, or like images beside masks, so that a reader of
folders would take them for something else.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ufo_large.data.datasets.base import list_images
from ufo_large.data.datasets.split_names import split_folders, subfolders

LABEL_FOLDERS = ("labels", "label", "annotations", "annotation")
SUFFIXES = (".txt", ".xml", ".json")
LOOKED_AT = 10  # of the files of one folder: the first may be a list of classes
AS_COCO = "write them as COCO, in annotations/instances_<split>.json"
AS_YOLO = "write one into the folder, with train: images/train, val: images/val and names: [car, bus]"
AS_DARKNET = "write a data.yaml beside it, with train: obj_train_data and names: [car, bus]"
YOLO_NUMBERS = 5  # class, centre x, centre y, width, height; polygons and key points have more


def unread_annotations(root: Path) -> str:
    """Return which file has annotations that no reader takes, with the remedy; empty where none has."""
    told = next(filter(None, map(_told, _candidates(root))), "")
    return told and f"{told}; or move such files out if the folders alone say the classes"


def _candidates(root: Path) -> Iterator[Path]:
    """Yield files of the root and its split folders, some of each label folder, some named as pictures."""
    for place in (root, *split_folders(root).values()):
        yield from _files(place, ".json", ".data")
        for folder in (place / name for name in LABEL_FOLDERS):
            for kept in (folder, *split_folders(folder).values()):
                yield from islice(_files(kept, *SUFFIXES), LOOKED_AT)
        for folder in (place, *subfolders(place)):
            stems = {Path(name).stem for name in list_images(folder)}
            yield from islice((p for p in _files(folder, *SUFFIXES) if p.stem in stems), LOOKED_AT)


def _files(folder: Path, *suffixes: str) -> Iterator[Path]:
    """Yield files that are not empty: YOLO has empty ones for pictures without objects."""
    if folder.is_dir():
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)
        yield from (p for p in found if p.is_file() and p.stat().st_size)


def _told(file: Path) -> str:
    content, suffix = file.read_bytes(), file.suffix.lower()
    if suffix == ".txt" and is_yolo(content):
        return f"{file}: YOLO is read where a data.yaml names its pictures and classes; {AS_YOLO}"
    if suffix == ".data" and re.search(rb"^\s*names\s*=", content, re.MULTILINE):
        return f"{file}: Darknet's list of files is not read; {AS_DARKNET}"
    if suffix == ".xml" and b"<annotation" in content:
        return f"{file}: VOC is read from Annotations/ and JPEGImages/; name the folders so"
    if suffix == ".json" and b'"shapes"' in content:
        return f"{file}: LabelMe's shapes are not read; {AS_COCO}"
    if suffix == ".json" and b'"images"' in content and b'"annotations"' in content:
        place = "with the pictures in images/<split>/ or images/"
        return f"{file}: COCO is read from annotations/instances_<split>.json, {place}; move and name it so"
    return ""


def is_yolo(content: bytes, exactly: bool = False) -> bool:
    """True where every line is a class number and at least four numbers in 0..1; no more where `exactly`."""
    try:
        rows = [[float(word) for word in line.split()] for line in content.splitlines() if line.strip()]
    except ValueError:
        return False
    return bool(rows) and all(
        len(row) >= YOLO_NUMBERS
        and (len(row) == YOLO_NUMBERS or not exactly)
        and row[0].is_integer()
        and all(0 <= v <= 1 for v in row[1:5])
        for row in rows
    )
