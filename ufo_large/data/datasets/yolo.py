"""YOLO detection as Ultralytics and Roboflow lay it out: data.yaml, folders images/ and labels/.

A picture's label file is its path with the last images/ turned into labels/, and .txt; without images/ in its
path it lies beside the picture. An empty or missing file means that the picture shows no object.
"""

from collections import defaultdict
from pathlib import Path

from PIL import UnidentifiedImageError

from ufo_large.config import outside
from ufo_large.data.datasets.base import IMAGE_SUFFIXES, list_images, numbered_lines
from ufo_large.data.datasets.split_names import subfolders
from ufo_large.data.datasets.walk import files_below
from ufo_large.data.datasets.yolo_folders import bare_yolo_set, label_files
from ufo_large.data.datasets.yolo_rows import read_rows
from ufo_large.data.datasets.yolo_yaml import YoloSet, place_inside, read_yaml, yaml_files
from ufo_large.media.opening import open_picture
from ufo_large.structures import FIX_REMEDY, Example, Findings, Reporter, SourceTask, numbered_info


def is_yolo_folder(root: Path) -> bool:
    """True where a YAML file in it lists class names."""
    return bool(yaml_files(root))


def read_yolo_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Read a YOLO data set. Names are relative to the split's folder, to `root` where it has several.

    Raises ValueError for a data.yaml that does not say where its pictures are, and of what classes.
    """
    return _read_set(read_yaml(root), task, findings)


def read_bare_yolo_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Read a YOLO data set that has no data.yaml; see `yolo_folders`."""
    return _read_set(bare_yolo_set(root, task, findings), task, findings)


def _read_set(data: YoloSet, task: str, findings: Findings) -> SourceTask:
    info = numbered_info(task, "detection", data.names)
    splits = {}
    for split, places in data.splits.items():
        report = findings.at(task, split)
        images = [image for place in places for image in _images_of(place, data.root, report)]
        base = places[0] if len(places) == 1 and places[0].is_dir() else data.root
        splits[split] = _read_split(data, _once_each(images, report), base, places, report)
    _report_unread(data, splits, findings.at(task))
    return SourceTask(info, splits)


def label_file(image: Path, root: Path) -> Path:
    """Return where the labels of a picture lie."""
    *folders, name = image.relative_to(root).with_suffix(".txt").parts
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        folders[last] = "labels"
    return root.joinpath(*folders, name)


def _images_of(place: Path, root: Path, report: Reporter) -> list[Path]:
    """Return the pictures below a folder, or those that a list names."""
    if place.is_dir():
        return [p for p in files_below(place) if p.suffix.lower() in IMAGE_SUFFIXES]
    images = []
    for line, text in numbered_lines(place, report):
        try:
            image = place_inside(root, text, f"{place}:{line}")
        except ValueError as error:
            report.add("annotation", f"{error}; or {FIX_REMEDY}", place)
            continue
        places = (image,) if outside(text) else (image, place.parent / text)
        image = next((p for p in places if p.is_file()), None)
        if image is None:
            report.add("missing", f"{place}:{line}: {text} is not there; copy it or {FIX_REMEDY}", place)
        else:
            images.append(image)
    return images


def _once_each(images: list[Path], report: Reporter) -> list[Path]:
    seen: dict[Path, None] = {}
    for image in images:
        if image in seen:
            report.add("duplicate", f"{image}: stands twice in {report.split}; {FIX_REMEDY}", image)
        seen[image] = None
    return list(seen)


def _read_split(
    data: YoloSet, images: list[Path], base: Path, places: list[Path], report: Reporter
) -> list[Example]:
    files = {image: label_file(image, data.root) for image in images}
    has_labels = any(file.is_file() for file in files.values())
    if files and not has_labels and report.split != "test":
        folder = next(iter(files.values())).parent
        told = f"{places[0]}: none of its {len(files)} pictures has a label file in {folder}"
        report.add("label", f"{told}; put them there", places[0], keeps_images=True)
    _report_stray(files, report)
    labels = {number: label for label, number in enumerate(sorted(data.names))}
    examples = []
    for number, (image, file) in enumerate(files.items(), 1):
        size = _size_of(image, report)
        if size is None:
            continue
        boxes = read_rows(file, image, size, labels, data.has_key_points, report) if file.is_file() else ()
        examples.append(
            Example(
                image=image,
                file_name=image.relative_to(base).as_posix(),
                image_id=number,
                where=str(file),
                truth=boxes if has_labels or report.split != "test" else None,
            )
        )
    return examples


def _size_of(image: Path, report: Reporter) -> tuple[int, int] | None:
    """Return (height, width), which turn shares into pixels; reports a picture that cannot be read."""
    try:
        with open_picture(image) as opened:
            return opened.height, opened.width
    except (OSError, ValueError, SyntaxError) as error:
        reason = "not a picture that can be read" if isinstance(error, UnidentifiedImageError) else error
        report.add("picture", f"{image}: {reason}; replace the file, or {FIX_REMEDY}", image)
        return None


def _report_stray(files: dict[Path, Path], report: Reporter) -> None:
    """Report label files that belong to no picture: their objects would be lost without a word."""
    stems: dict[Path, set[str]] = defaultdict(set)
    for folder, labels in {(image.parent, file.parent) for image, file in files.items()}:
        if folder != labels:
            stems[labels] |= {Path(name).stem for name in list_images(folder)}
    for folder in sorted(stems):
        for file in label_files(folder):
            if file.stem not in stems[folder]:
                told = f"{file}: no picture of that name; add it, or {FIX_REMEDY}"
                report.add("missing", told, file, keeps_images=True)


def _report_unread(data: YoloSet, splits: dict[str, list[Example]], report: Reporter) -> None:
    """Report folders of pictures beside those of the splits, which data.yaml does not name."""
    folders = [p for places in data.splits.values() for p in places if p.is_dir() and p != data.root]
    folders = [folder.parent if folder.name == "images" else folder for folder in folders]
    folders = [folder for folder in folders if folder != data.root]
    used = {parent for examples in splits.values() for e in examples for parent in e.image.parents}
    for parent in sorted({folder.parent for folder in folders}):
        siblings = [p for p in subfolders(parent) if list_images(p) or list_images(p / "images")]
        if unread := [p for p in siblings if p not in used and p not in folders]:
            taken = ", ".join(sorted({folder.name for folder in folders if folder.parent == parent}))
            told = f"{', '.join(p.name for p in unread)}: not read beside {taken}"
            report.add("unread", f"{parent}: {told}; name it in data.yaml, or move it out", unread[0])
