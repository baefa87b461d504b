"""What the data says about a task: its kind and its classes. Nothing of it is written in code."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["classification", "detection", "segmentation"]
KINDS: tuple[Kind, ...] = ("classification", "detection", "segmentation")
IGNORE_INDEX = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskInfo:
    """One task of a data set, as its shards describe it.

    `name` is also the prefix of losses and metrics (`cls`, `dec`, `seg` in the contest layout).
    `class_names[i]` belongs to label i as the model sees it; `class_ids[i]` is the id of the same
    class in the user's files (COCO category id, label value) and in submissions.
    """

    name: str
    kind: Kind
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"task {self.name!r}: unknown kind {self.kind!r}; known: {', '.join(KINDS)}")
        if len(self.class_names) != len(self.class_ids):
            raise ValueError(
                f"task {self.name!r}: {len(self.class_names)} class names but {len(self.class_ids)} class ids"
            )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)
