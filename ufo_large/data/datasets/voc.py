"""Pascal VOC detection: Annotations/*.xml, JPEGImages/*, ImageSets/Main/<split>.txt with a stem a line."""

import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from ufo_large.data.datasets.base import list_images, numbered_lines
from ufo_large.data.datasets.split_names import splits_among
from ufo_large.kinds.boxes import Box
from ufo_large.structures import FIX_REMEDY, Example, Findings, Reporter, SourceTask, numbered_info

# VOC counts pixels from 1 and includes the last: left and top edges move by one
FIRST_PIXEL = 1.0


def is_voc_folder(root: Path) -> bool:
    return (root / "Annotations").is_dir() and (root / "JPEGImages").is_dir()


def read_voc_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Read a VOC folder. Without lists in ImageSets/Main every picture belongs to train.

    Classes are the names that occur, in alphabetical order. Objects marked difficult are crowds: they are
    neither learned nor counted as missed.
    """
    images = {path.stem: path for path in list_images(root / "JPEGImages").values()}
    lists = _split_lists(root)
    named: dict[str, list[tuple[Example, list[str]]]] = {}
    for split in lists or ["train"]:
        report = findings.at(task, split)
        stems = _read_stems(lists[split], images, report) if lists else list(images)
        read = (_read_image(root, images[stem], number, report) for number, stem in enumerate(stems, 1))
        named[split] = [pair for pair in read if pair is not None]
    names = sorted({name for pairs in named.values() for _, used in pairs for name in used})
    info = numbered_info(task, "detection", dict(enumerate(names)))
    splits = {split: [_with_labels(e, used, names) for e, used in pairs] for split, pairs in named.items()}
    return SourceTask(info, splits)


def _split_lists(root: Path) -> dict[str, Path]:
    """Return the list of each split; trainval.txt is train where train.txt is not there."""
    files = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    lists = splits_among((file.stem, file) for file in files)
    both = root / "ImageSets" / "Main" / "trainval.txt"
    return lists if "train" in lists or not both.is_file() else {"train": both, **lists}


def _read_stems(file: Path, images: dict[str, Path], report: Reporter) -> list[str]:
    stems: dict[str, None] = {}
    for line, text in numbered_lines(file, report):
        stem = text if text in images else text.split()[0]  # a class's list has -1, 0 or 1 behind the name
        if stem in stems:
            report.add("duplicate", f"{file}:{line}: {stem} stands twice; {FIX_REMEDY}", file)
        elif stem not in images:
            report.add("missing", f"{file}:{line}: no picture {stem} in JPEGImages; {FIX_REMEDY}", file)
        else:
            stems[stem] = None
    return list(stems)


def _read_image(root: Path, image: Path, number: int, report: Reporter) -> tuple[Example, list[str]] | None:
    """Return the example and the class name of each box; labels come later, when all names are known."""
    file = root / "Annotations" / f"{image.stem}.xml"
    try:
        tree = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        report.add("annotation", f"{file}: cannot be read ({error}); {FIX_REMEDY}", image)
        return None
    boxes, names = [], []
    for position, thing in enumerate(tree.iter("object"), 1):
        box, name = _read_box(thing), (thing.findtext("name") or "").strip()
        if box is None or not name:
            wanted = "a name and bndbox with xmin, ymin, xmax, ymax"
            told = f"{file}: object {position} needs {wanted}; {FIX_REMEDY}"
            report.add("annotation", told, image, keeps_images=True)
            continue
        boxes.append(box)
        names.append(name)
    example = Example(
        image=image,
        file_name=image.name,
        image_id=number,
        where=str(file),
        size=_read_size(tree),
        truth=tuple(boxes),
    )
    return example, names


def _read_box(thing: ElementTree.Element) -> Box | None:
    try:
        x0, y0, x1, y1 = (
            float(thing.findtext(f"bndbox/{k}") or "") for k in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError:
        return None
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        return None
    difficult = (thing.findtext("difficult") or "0").strip() == "1"
    return Box(xyxy=(x0 - FIRST_PIXEL, y0 - FIRST_PIXEL, x1, y1), label=0, crowd=difficult)


def _read_size(tree: ElementTree.Element) -> tuple[int, int] | None:
    height, width = tree.findtext("size/height") or "", tree.findtext("size/width") or ""
    if not (height.isdecimal() and width.isdecimal()) or "0" in (height, width):
        return None  # some tools write no size, or zero
    return int(height), int(width)


def _with_labels(example: Example, used: list[str], names: list[str]) -> Example:
    boxes = (replace(box, label=names.index(name)) for box, name in zip(example.truth, used, strict=True))
    return replace(example, truth=tuple(boxes))
