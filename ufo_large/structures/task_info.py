"""What the data says about a task: its kind and its classes. Nothing of it is written in code."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ufo_large.structures.task_names import require_free_name

IGNORE_INDEX = 255
Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskInfo:
    """One task of a data set, as its shards describe it.

    `name`, one word, is also the prefix of losses, metrics and files (`cls`, `dec`, `seg` in the contest's
    layout). `kind` is the name of one in `ufo_large.kinds`. `class_names[i]` belongs to label i as the model
    sees it; `class_ids[i]` is the id of the same class in the user's files (COCO category id, label value)
    and in submissions. Both are empty where a kind has no classes.
    """

    name: str
    kind: str
    class_names: tuple[str, ...] = ()
    class_ids: tuple[int, ...] = ()

    def __post_init__(self):
        if not re.fullmatch(r"\w[\w-]*", self.name):
            raise ValueError(f"task {self.name!r}: name it with letters, digits, _ and - alone, as files are")
        require_free_name(self.name)
        if len(self.class_names) != len(self.class_ids):
            raise ValueError(
                f"task {self.name!r}: {len(self.class_names)} class names but {len(self.class_ids)} class ids"
            )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TaskInfo":
        """Build what `dataclasses.asdict` wrote.

        Raises KeyError or TypeError where something is missing, ValueError where it is of another type.
        """
        names, ids = value["class_names"], value["class_ids"]
        if not all(isinstance(value[key], str) for key in ("name", "kind")):
            raise ValueError(f"a task's name {value['name']!r} and kind {value['kind']!r} must be text")
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"task {value['name']!r}: class_names must be a list of texts")
        if not isinstance(ids, list | tuple) or not all(type(number) is int for number in ids):
            raise ValueError(f"task {value['name']!r}: class_ids must be a list of whole numbers")
        return cls(name=value["name"], kind=value["kind"], class_names=tuple(names), class_ids=tuple(ids))

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def choose(self, entries: Mapping[str, Entry]) -> Entry | None:
        """Return the entry for this task, by its name, else by its kind; None where there is neither."""
        return entries.get(self.name, entries.get(self.kind))


def numbered_info(name: str, kind: str, names_by_id: Mapping[int, str]) -> TaskInfo:
    """Return a TaskInfo whose labels 0..K-1 follow the user's ids in rising order."""
    ids = tuple(sorted(names_by_id))
    return TaskInfo(name=name, kind=kind, class_names=tuple(names_by_id[i] for i in ids), class_ids=ids)
