"""YOLO folders without a data.yaml: images/ beside labels/, in ROOT or in each split's folder.

Read where they cannot be mistaken: label files hold rows of a class and four shares alone. Classes have the
names of a classes.txt or obj.names in ROOT or among the labels, else their numbers.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from ufo_large.data.datasets.annotation_files import YOLO_NUMBERS, is_yolo
from ufo_large.data.datasets.base import list_images, numbered_lines, read_class_names
from ufo_large.data.datasets.split_names import split_folders, split_said_by
from ufo_large.data.datasets.yolo_yaml import YoloSet
from ufo_large.structures import Findings, Reporter

IMAGES, LABELS = "images", "labels"
CLASS_LISTS = ("classes.txt", "obj.names")
LOOKED_AT = 10  # label files of each split
AS_YAML = "write a data.yaml with train:, val: and names: (and kpt_shape: for key points)"


def is_bare_yolo_folder(root: Path) -> bool:
    """True where the first label files of each split are rows of YOLO, and no list says other splits."""
    folders = [labels for _, labels in _places(root).values()]
    lists = [file for file in root.glob("*.txt") if split_said_by(file.stem)]
    if not folders or lists or any(map(list_images, folders)):
        return False
    looked = [file.read_bytes() for folder in folders for file in islice(label_files(folder), LOOKED_AT)]
    rows = [content for content in looked if content.strip()]
    return bool(rows) and all(is_yolo(content, exactly=True) for content in rows)


def _places(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return the folders of pictures and of labels of each split."""
    by_split = {split: (folder / IMAGES, folder / LABELS) for split, folder in split_folders(root).items()}
    by_kind = {s: (folder, root / LABELS / folder.name) for s, folder in split_folders(root / IMAGES).items()}
    for places in (by_split, by_kind, {"train": (root / IMAGES, root / LABELS)}):
        found = {split: pair for split, pair in places.items() if list_images(pair[0])}
        if any(labels.is_dir() for _, labels in found.values()):
            return found
    return {}


def label_files(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.glob("[!.]*.txt")) if p.name not in CLASS_LISTS)


def bare_yolo_set(root: Path, task: str, findings: Findings) -> YoloSet:
    """Raises ValueError for rows that may be polygons or key points, and for two lists of classes."""
    places, report = _places(root), findings.at(task)
    folders = [labels for _, labels in places.values()]
    numbers = _classes_in(chain.from_iterable(map(label_files, folders)), report)
    file = _class_list([root, root / LABELS, *folders])
    names = read_class_names(file, report) if file else {number: str(number) for number in sorted(numbers)}
    splits = {split: [images] for split, (images, _) in places.items()}
    return YoloSet(root=root, splits=splits, names=names, has_key_points=False)


def _classes_in(files: Iterable[Path], report: Reporter) -> set[int]:
    """Return the class numbers of all rows; what cannot be read is reported with the boxes."""
    numbers = set()
    for file in files:
        for line, text in numbered_lines(file, report):
            words = text.split()
            if len(words) > YOLO_NUMBERS:
                told = f"{file}:{line}: {len(words)} numbers may be a polygon or key points"
                raise ValueError(f"{told}, which no file says; {AS_YAML}")
            numbers |= {int(words[0])} if words[0].isdecimal() else set()
    return numbers


def _class_list(folders: Iterable[Path]) -> Path | None:
    places = (folder / name for folder in dict.fromkeys(folders) for name in CLASS_LISTS)
    files = [place for place in places if place.is_file()]
    if len({file.read_text(encoding="utf-8-sig").strip() for file in files}) > 1:
        raise ValueError(f"{', '.join(map(str, files))}: other classes in each; keep one")
    return files[0] if files else None
