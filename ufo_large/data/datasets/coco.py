"""COCO detection JSON: categories of any numbering, sparse image ids, boxes as [x, y, width, height]."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from ufo_large.config import LARGE_BYTES, outside, read_json
from ufo_large.data.datasets.base import list_images
from ufo_large.data.datasets.split_names import report_unread, splits_among
from ufo_large.kinds.answers import is_int, is_number
from ufo_large.kinds.boxes import Box
from ufo_large.structures import FIX_REMEDY, Example, Findings, Reporter, SourceTask, numbered_info

# the lists of a file; without `annotations` where the file has none
Coco = dict[str, list[dict[str, Any]]]
LISTS = ("images", "annotations", "categories")


def load_coco(file: Path, report: Reporter) -> Coco:
    """Read a COCO file; reports and returns empty lists where it is not one."""
    try:
        raw = read_json(file, "write it again", finite=False, limit=LARGE_BYTES)
    except OSError as error:
        report.add("json", f"{file}: cannot be read ({error.strerror}); write it again", file)
        return {name: [] for name in LISTS}
    except ValueError as error:
        report.add("json", str(error), file)
        return {name: [] for name in LISTS}
    if not isinstance(raw, dict) or not all(_is_list_of_dicts(raw.get(name, [])) for name in LISTS):
        report.add("json", f"{file}: not a COCO file; it needs the lists {', '.join(LISTS)}", file)
        return {name: [] for name in LISTS}
    return raw | {name: raw.get(name, []) for name in ("images", "categories")}


def _is_list_of_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) for v in value)


def read_categories(cocos: dict[Path, Coco], report: Reporter) -> dict[int, str]:
    """Merge the category lists of files; an id with two names, or a name with two used ids, is reported.

    Of several ids of one name only that in use is kept, or the highest if none is: some tools write the
    super-category before the categories, as one of them.
    """
    names: dict[int, str] = {}
    for file, coco in cocos.items():
        for category in coco["categories"]:
            number, name = category.get("id"), str(category.get("name", category.get("id")))
            if not is_int(number):
                report.add("classes", f"{file}: category {category} has no integer id; give it one", file)
            elif names.setdefault(number, name) != name:
                clash = f"category id {number} is {name!r} here and {names[number]!r} in another file"
                report.add("classes", f"{file}: {clash}; use one name", file)
    return _once_each(names, cocos, report)


def _once_each(names: dict[int, str], cocos: dict[Path, Coco], report: Reporter) -> dict[int, str]:
    stated = (a.get("category_id") for coco in cocos.values() for a in coco.get("annotations", []))
    used = {number for number in stated if is_int(number)}
    by_name: dict[str, list[int]] = defaultdict(list)
    for number, name in names.items():
        by_name[name].append(number)
    dropped: set[int] = set()
    for name, numbers in by_name.items():
        kept = [n for n in numbers if n in used] or [max(numbers)]
        dropped.update(set(numbers) - set(kept))
        if len(kept) > 1:
            file = next(iter(cocos))
            told = f"{file}: the categories {', '.join(map(str, kept))} are all named {name!r}"
            report.add("classes", f"{told}; name them apart, or make them one", file)
    return {number: name for number, name in names.items() if number not in dropped}


class CocoReader:
    """Turns one COCO file into examples, in the order of its `images`.

    Those of a test file without annotations are unlabelled; any other file needs the list, if empty.
    `labels` maps a category id to a model label. What is wrong is reported and left out.
    """

    def __init__(self, file: Path, folder: Path, labels: dict[int, int], report: Reporter):
        self.file, self.folder, self.labels, self.report = file, folder, labels, report
        self.present = list_images(folder)
        self.seen_ids: set[int] = set()
        self.seen_names: set[str] = set()

    def read(self, coco: Coco) -> list[Example]:
        boxes: dict[int, list[Box]] | None = self._boxes_by_image(coco)
        if self.report.split == "test" and not coco.get("annotations"):
            boxes = None
        elif "annotations" not in coco:
            remedy = "name it so, or write an empty list if no image shows an object"
            self._add("json", f"no list `annotations`, only {', '.join(coco)}; {remedy}")
        return [e for e in (self._example(image, boxes) for image in coco["images"]) if e is not None]

    def _boxes_by_image(self, coco: Coco) -> dict[int, list[Box]]:
        known = {image.get("id") for image in coco["images"] if is_int(image.get("id"))}
        boxes: dict[int, list[Box]] = defaultdict(list)
        seen: set[Any] = set()
        for position, annotation in enumerate(coco.get("annotations", [])):
            number = annotation.get("id")
            number = number if isinstance(number, int | str) else f"#{position}"
            problem = self._annotation_problem(annotation, known)
            if problem:
                self._add("annotation", f"annotation {number} {problem}; {FIX_REMEDY}", keeps_images=True)
                continue
            image = annotation["image_id"]
            if (image, number) in seen:  # ids that begin anew with every image tell its boxes apart
                told = f"annotation id {number} of image_id {image} stands twice"
                self._add("duplicate", f"{told}; {FIX_REMEDY}", keeps_images=True)
            else:
                seen.add((image, number))
                boxes[image].append(self._box(annotation))
        return boxes

    def _annotation_problem(self, annotation: dict[str, Any], known: set[Any]) -> str:
        image, category, area = (annotation.get(key) for key in ("image_id", "category_id", "area"))
        if not is_int(image) or image not in known:
            return f"is of image_id {image}, which is not in `images`"
        if not is_int(category) or category not in self.labels:
            return f"has category_id {category}, which is not in `categories`"
        if area is not None and not is_number(area):
            return f"has area {area!r}, not a number of pixels"
        if not is_box(annotation.get("bbox")):
            return f"has bbox {annotation.get('bbox')}, not [x, y, width, height] in pixels"
        return ""

    def _box(self, annotation: dict[str, Any]) -> Box:
        x, y, width, height = (float(v) for v in annotation["bbox"])
        area = annotation.get("area")
        return Box(
            xyxy=(x, y, x + width, y + height),
            label=self.labels[annotation["category_id"]],
            crowd=bool(annotation.get("iscrowd", 0)),
            area=None if area is None else float(area),
        )

    def _example(self, image: dict[str, Any], boxes: dict[int, list[Box]] | None) -> Example | None:
        number, name = image.get("id"), image.get("file_name")
        if not is_int(number) or not isinstance(name, str):
            self._add("annotation", f"image {image} needs an integer `id` and a `file_name`; {FIX_REMEDY}")
            return None
        if told := outside(name):
            self._add("annotation", f"image {name!r} (id {number}) {told}; or {FIX_REMEDY}")
            return None
        path = self.present.get(name, self.folder / name)
        if number in self.seen_ids or name in self.seen_names:
            self._add("duplicate", f"image id {number} ({name}) stands twice; {FIX_REMEDY}", path)
            return None
        self.seen_ids.add(number)
        self.seen_names.add(name)
        if name not in self.present and not path.is_file():
            self._add(
                "missing",
                f"image {name} (id {number}) is not in {self.folder}; copy it or {FIX_REMEDY}",
                path,
            )
            return None
        return Example(
            image=path,
            file_name=name,
            image_id=number,
            where=f"{self.file}: image {name}",
            size=_size_of(image),
            truth=None if boxes is None else tuple(boxes.get(number, ())),
        )

    def _add(self, kind: str, message: str, path: Path | None = None, keeps_images: bool = False) -> None:
        self.report.add(kind, f"{self.file}: {message}", path or self.file, keeps_images)


def _size_of(image: dict[str, Any]) -> tuple[int, int] | None:
    """Return (height, width) as stated; some tools write no size, zero or null."""
    size = image.get("height"), image.get("width")
    return size if all(isinstance(v, int) and v > 0 for v in size) else None


def is_box(values: Any) -> bool:
    if not isinstance(values, list) or len(values) != 4:
        return False
    return all(map(is_number, values))


def is_coco_folder(root: Path) -> bool:
    """True for a folder with annotations/instances_<split>[year].json or annotations/<split>.json."""
    return bool(_split_files(root))


def _split_files(root: Path) -> dict[str, Path]:
    files = sorted((root / "annotations").glob("*.json"))  # of two years the later one stays
    return splits_among((file.stem.removeprefix("instances_").rstrip("0123456789_-"), file) for file in files)


def read_coco_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    """Read ROOT/annotations/instances_<split>[year].json; pictures in ROOT/<split>[year] or ROOT/images."""
    files = _split_files(root)
    instances = sorted((root / "annotations").glob("instances_*.json"))
    report_unread(instances, files.values(), findings.at(task))
    cocos = {file: load_coco(file, findings.at(task, split)) for split, file in files.items()}
    info = numbered_info(task, "detection", read_categories(cocos, findings.at(task)))
    labels = {number: label for label, number in enumerate(info.class_ids)}
    splits = {
        split: CocoReader(file, _picture_folder(root, file), labels, findings.at(task, split)).read(
            cocos[file]
        )
        for split, file in files.items()
    }
    return SourceTask(info, splits)


def _picture_folder(root: Path, file: Path) -> Path:
    name = file.stem.removeprefix("instances_")
    candidates = (root / name, root / "images" / name, root / "images")
    return next((folder for folder in candidates if folder.is_dir()), root / "images")
