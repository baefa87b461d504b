"""What every reader of a user's folder returns: examples by task and split, labels already the model's."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import numpy as np

from ufo_large.config import Problems
from ufo_large.structures import IGNORE_INDEX, Kind, TaskInfo

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
INVALID = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """One annotated object: pixels of the stored image, model label, COCO's crowd flag and area."""

    xyxy: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskCoding:
    """How a mask file's values become model labels.

    `table[v]` is the label of grey or palette value v, 255 = ignore, -1 = a value that is no class.
    `colors`, if any, maps 0xRRGGBB to a label instead, also of grey pictures; a colour not in it is no class.
    """

    table: tuple[int, ...]
    colors: dict[int, int] | None = None

    @classmethod
    def identity(cls, num_classes: int) -> "MaskCoding":
        """Values 0..K-1 are labels, 255 is ignore, the rest is no class."""
        return cls.from_values({v: v for v in range(num_classes)})

    @classmethod
    def from_values(cls, labels: dict[int, int]) -> "MaskCoding":
        """`labels` maps file values to model labels; 255 stays ignore unless it says otherwise."""
        labels = {IGNORE_INDEX: IGNORE_INDEX, **labels}
        return cls(table=tuple(labels.get(v, INVALID) for v in range(256)))

    def label_of(self, value: int) -> int:
        """Return the label of a value of the file, 255 = ignore, -1 = no class."""
        if self.colors is not None:
            return self.colors.get(value, INVALID)
        return self.table[value] if 0 <= value < len(self.table) else INVALID

    def labels_of(self, values_HW: np.ndarray) -> np.ndarray:
        """Return the labels int16 [H, W] of a mask's values, 255 = ignore, -1 = no class."""
        if self.colors is None:
            table = np.array([*self.table, INVALID], np.int16)
            return table[np.clip(values_HW, -1, len(self.table))]
        labels_HW = np.full(values_HW.shape, INVALID, np.int16)
        for color, label in self.colors.items():
            labels_HW[values_HW == color] = label
        return labels_HW

    def renumbered(self, new_labels: Iterable[int]) -> "MaskCoding":
        """Send label i to `new_labels[i]`; ignore and invalid stay."""
        new = dict(enumerate(new_labels))
        return MaskCoding(
            table=tuple(new.get(v, v) if v != IGNORE_INDEX else v for v in self.table),
            colors=None if self.colors is None else {c: new.get(v, v) for c, v in self.colors.items()},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One image with its annotation: `label`, `boxes` or `mask` by the task's kind, none when unlabelled.

    `where` names the line or entry of the user's files that it comes from, for messages. `size` is the
    (height, width) that the annotation claims, to be compared with the picture; None when it claims nothing.
    """

    image: Path
    file_name: str
    image_id: int
    where: str
    size: tuple[int, int] | None = None
    label: int | None = None
    boxes: tuple[Box, ...] | None = None
    mask: Path | None = None
    mask_coding: MaskCoding | None = None

    @property
    def labeled(self) -> bool:
        return self.label is not None or self.boxes is not None or self.mask is not None


@dataclass(slots=True)
class SourceTask:
    """One task as one source tells it: `splits[split]` in official order."""

    info: TaskInfo
    splits: dict[str, list[Example]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing wrong with a user's data; `message` names the file, the line or value, and the remedy.

    `keeps_images`: all images of the split are still there, as after a bad box; for what readers report.
    """

    kind: str
    message: str
    task: str = ""
    split: str = ""
    path: str = ""
    keeps_images: bool = False


@dataclass(slots=True)
class Findings:
    """Everything a reader found wrong. A reader reports an entry, leaves it out and reads on."""

    items: list[Finding] = field(default_factory=list)

    def at(self, task: str, split: str = "") -> "Reporter":
        return Reporter(self, task, split)

    def raise_if_any(self, subject: str) -> None:
        """Raise one ValueError that lists them (the first 20 in full)."""
        problems = Problems(subject)
        for item in self.items:
            problems.add(item.message)
        problems.raise_if_any()


@dataclass(frozen=True, slots=True)
class Reporter:
    """Adds findings of one task and split."""

    findings: Findings
    task: str
    split: str

    def add(self, kind: str, message: str, path: str | Path, keeps_images: bool = False) -> None:
        self.findings.items.append(
            Finding(
                kind=kind,
                message=message,
                task=self.task,
                split=self.split,
                path=str(path),
                keeps_images=keeps_images,
            )
        )


FIX_REMEDY = "correct it, or drop such entries with data_sharding/check_data.py --fix OUT"


def numbered_info(name: str, kind: Kind, names_by_id: dict[int, str]) -> TaskInfo:
    """Return a TaskInfo whose labels 0..K-1 follow the user's ids in rising order."""
    ids = tuple(sorted(names_by_id))
    return TaskInfo(name=name, kind=kind, class_names=tuple(names_by_id[i] for i in ids), class_ids=ids)


def joined(first: list[Example], second: list[Example]) -> list[Example]:
    """Append the examples of a second source; its ids and names move aside where any would collide.

    Names tell answers apart at evaluation: "a.jpg" of the second source becomes "2/a.jpg", and so on.
    """
    ids, names = {e.image_id for e in first}, {e.file_name for e in first}
    if any(e.image_id in ids for e in second):
        shift = max(ids) + 1 - min(e.image_id for e in second)
        second = [replace(e, image_id=e.image_id + shift) for e in second]
    if any(e.file_name in names for e in second):
        free = next(n for n in count(2) if all(f"{n}/{e.file_name}" not in names for e in second))
        second = [replace(e, file_name=f"{free}/{e.file_name}") for e in second]
    return first + second


def list_images(folder: Path) -> dict[str, Path]:
    """Return the pictures of a folder by file name, sorted; empty when there is no such folder."""
    if not folder.is_dir():
        return {}
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return {p.name: p for p in sorted(files)}


def numbered_lines(file: Path, report: Reporter) -> list[tuple[int, str]]:
    """Return (line number from 1, text) of every line that is not blank."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        report.add("label", f"{file}: not UTF-8 text ({error}); save it as UTF-8", file)
        return []
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def read_class_names(file: Path, report: Reporter) -> dict[int, str]:
    """Read classes.txt: one name a line, line i (from 0) names id i; or "<id> <name>" on every line."""
    lines = [text for _, text in numbered_lines(file, report)]
    numbered = [line.split(maxsplit=1) for line in lines]
    if lines and all(len(parts) == 2 and parts[0].isdigit() for parts in numbered):
        names = {int(number): name for number, name in numbered}
    else:
        names = dict(enumerate(lines))
    if len(names) != len(lines) or len(set(names.values())) != len(lines) or not lines:
        report.add("classes", f"{file}: empty, or an id or name stands twice; write each class once", file)
    return names
