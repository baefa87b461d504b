"""Hold images of the train split out for validation where a task has no val split.

Stratified: an image belongs to the rarest class that it shows, and each class gives its share. Which images
are held out depends on file names, classes and seed alone, so the same command holds out the same ones.
"""

import math
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ufo_large.config import read_json, write_json
from ufo_large.kinds import kind_of
from ufo_large.media.pictures import FileFacts
from ufo_large.structures import Example, SourceTask

HELD_OUT_FILE = "held_out.json"
Facts = Mapping[Path, FileFacts]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """What became the val split of a task: names of the images, and of the classes that none of them shows.

    A class with a single image is never held out: training needs it more.
    """

    task: str
    images: tuple[str, ...]
    left: int
    unseen: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.images) + self.left
        told = f"{self.task}: no val split, so {len(self.images)} of {total} train images"
        shown = ", ".join(self.images[:3]) + (", ..." if len(self.images) > 3 else "")
        unseen = f"; none shows {', '.join(self.unseen[:10])}" if self.unseen else ""
        return f"{told} validate ({shown}){unseen}"


def write_held_out(folder: Path, held: Iterable[HeldOut]) -> None:
    write_json(folder / HELD_OUT_FILE, [asdict(one) for one in held])


def read_held_out(folder: Path) -> list[HeldOut]:
    """Return what was held out for the shards in a folder; nothing where all came with a val split."""
    if not (file := folder / HELD_OUT_FILE).is_file():
        return []
    rows = read_json(file, "run make_shards.py again")
    return [HeldOut(**row | {name: tuple(row[name]) for name in ("images", "unseen")}) for row in rows]


def hold_out(
    tasks: Iterable[SourceTask], facts: Facts, share: float, seed: int
) -> tuple[list[SourceTask], list[HeldOut]]:
    """Return the tasks, with `share` of the train split as val where they have none, and what was moved.

    Raises ValueError where a task has a single image to train on.
    """
    done = [_hold_out(task, facts, share, seed) for task in tasks]
    return [task for task, _ in done], [held for _, held in done if held is not None]


def _hold_out(task: SourceTask, facts: Facts, share: float, seed: int) -> tuple[SourceTask, HeldOut | None]:
    train = task.splits.get("train", [])
    if "val" in task.splits or not train:
        return task, None
    if len({facts[e.image].sha256 for e in train}) == 1:
        told = f"task {task.info.name!r}: one image to train on, or copies of one, leave none to validate"
        raise ValueError(f"{told}; add some")
    held = _chosen(task, facts, share, seed)
    val = [e for e in train if e.file_name in held]
    left = [e for e in train if e.file_name not in held]
    splits = {"train": left, "val": val, **{s: e for s, e in task.splits.items() if s != "train"}}
    shown, before = _classes(task, val, facts), _classes(task, train, facts)
    told = HeldOut(
        task=task.info.name,
        images=tuple(e.file_name for e in val),
        left=len(left),
        unseen=tuple(n for i, n in enumerate(task.info.class_names) if before[i] and not shown[i]),
    )
    return SourceTask(task.info, splits), told


def _classes(task: SourceTask, examples: Iterable[Example], facts: Facts) -> Counter[int]:
    """Return how many images show each class."""
    kind = kind_of(task.info)
    return Counter(label for e in examples if e.labeled for label in set(kind.classes_of(e.truth, facts)))


def _chosen(task: SourceTask, facts: Facts, share: float, seed: int) -> set[str]:
    """Return the file names to hold out: of each stratum its share, pictures with equal bytes together."""
    train, kind = task.splits["train"], kind_of(task.info)
    counts = _classes(task, train, facts)
    strata: dict[int, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
    stratum_of: dict[str, int] = {}
    for example in train:
        shown = kind.classes_of(example.truth, facts) if example.labeled else []
        rarest = min(set(shown), key=lambda label: (counts[label], label), default=-1)
        content = facts[example.image].sha256
        strata[stratum_of.setdefault(content, rarest)][content].append(example)
    held: set[str] = set()
    owed = 0.0  # classes too small for a whole image each give one together
    for label in sorted(strata):
        copies = list(strata[label].values())
        draw = random.Random(zlib.crc32(f"{seed} {task.info.name} {label}".encode()))
        draw.shuffle(copies)
        owed += share * len(copies)
        count = min(round(owed), len(copies) - 1, math.ceil(share * len(copies)))
        owed -= max(count, 0)
        held.update(e.file_name for group in copies[: max(count, 0)] for e in group)
    if not held:  # fewer images than 1 / share: one of the largest class
        largest = max(strata.values(), key=len)
        held.update(e.file_name for e in next(iter(largest.values())))
    return held
