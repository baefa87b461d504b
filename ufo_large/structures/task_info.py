"""What the data says about a task: its kind and its classes. Nothing of it is written in code."""

import re
from dataclasses import dataclass
from typing import Literal

from ufo_large.structures.task_names import require_free_name

Kind = Literal["classification", "detection", "segmentation"]
KINDS: tuple[Kind, ...] = ("classification", "detection", "segmentation")
IGNORE_INDEX = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskInfo:
    """One task of a data set, as its shards describe it.

    `name`, one word, is also the prefix of losses, metrics and files (`cls`, `dec`, `seg` in the contest's
    layout).
    `class_names[i]` belongs to label i as the model sees it; `class_ids[i]` is the id of the same
    class in the user's files (COCO category id, label value) and in submissions.
    """

    name: str
    kind: Kind
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]

    def __post_init__(self):
        if not re.fullmatch(r"\w[\w-]*", self.name):
            raise ValueError(f"task {self.name!r}: name it with letters, digits, _ and - alone, as files are")
        require_free_name(self.name)
        if self.kind not in KINDS:
            raise ValueError(f"task {self.name!r}: unknown kind {self.kind!r}; known: {', '.join(KINDS)}")
        if self.name in KINDS and self.name != self.kind:
            told = "that is a kind of task, but not this one's"
            raise ValueError(f"task {self.name!r}: {told}; choose another, for instance with --data NAME=DIR")
        if len(self.class_names) != len(self.class_ids):
            raise ValueError(
                f"task {self.name!r}: {len(self.class_names)} class names but {len(self.class_ids)} class ids"
            )
        if self.kind == "segmentation" and IGNORE_INDEX in self.class_ids[:IGNORE_INDEX]:
            named = self.class_names[self.class_ids.index(IGNORE_INDEX)]
            told = f"class {named!r} has the id {IGNORE_INDEX}, which means ignore in masks"
            raise ValueError(f"task {self.name!r}: {told}; write another id into masks and class list")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)
