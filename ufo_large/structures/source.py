"""What a reader of a user's folder returns: images with their annotation, and what was wrong with them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ufo_large.structures.task_info import TaskInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One image of a user's folder with its annotation.

    `truth` is what the task's kind takes for an annotation (a label, boxes, a mask's file), None when the
    image has none. `where` names the line or entry of the user's files that it comes from, for messages.
    `size` is the (height, width) that the annotation claims, to be compared with the picture; None when it
    claims nothing.
    """

    image: Path
    file_name: str
    image_id: int
    where: str
    size: tuple[int, int] | None = None
    truth: Any = None

    @property
    def labeled(self) -> bool:
        return self.truth is not None


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
