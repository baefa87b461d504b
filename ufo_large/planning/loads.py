"""What a rank is fed: the tasks and objects of a data set, or the contest's where there is none yet."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ufo_large.data.opener import is_remote
from ufo_large.data.shards import ShardSet
from ufo_large.kinds import KINDS, kind_of
from ufo_large.planning.micro_batch import Load
from ufo_large.runs.config import RunConfig
from ufo_large.structures import TaskInfo

BOXES = 4
"""Signs in a picture, where no data says how many."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """`boxes`: objects in an image of each task that has any, as `BOXES` says for the others."""

    tasks: tuple[TaskInfo, ...]
    boxes: Mapping[str, int]
    source: str


def sizes_of(config: RunConfig, data: str | None) -> Sizes:
    """Return the tasks of shards; without shards the contest's, for the kinds that the recipe trains.

    Raises ValueError where a recipe trains a task that the contest does not have.
    """
    if data is None or not (is_remote(data) or Path(data).exists()):
        told = "no data given" if data is None else f"{data} does not exist"
        return Sizes(_contest_tasks(config), {}, f"{told}: the contest's classes, {BOXES} boxes in a picture")
    shards = ShardSet.open(data)
    tasks = tuple(t for t in shards.tasks if shards.has_split(t.name, "train"))
    if not tasks:
        raise ValueError(f"{shards.name}: no train split of any task; make the shards from a train root too")
    readers = {t.name: shards.split(t.name, "train") for t in tasks if kind_of(t).counts_objects}
    boxes = {name: max(1, math.ceil(len(r.labels) / len(r))) for name, r in readers.items()}
    return Sizes(tasks, boxes, f"classes and boxes of {shards.name}")


def _contest_tasks(config: RunConfig) -> tuple[TaskInfo, ...]:
    tasks = []
    for key in config.tasks:
        usual = KINDS[key].contest if key in KINDS else None
        if usual is None:
            raise ValueError(f"the recipe trains {key!r}, which no sizes are known of: give its --data")
        name, count = usual
        names = tuple(f"class {i}" for i in range(count))
        tasks.append(TaskInfo(name=name, kind=key, class_names=names, class_ids=tuple(range(count))))
    return tuple(tasks)


def loads_of(config: RunConfig, sizes: Sizes, divided: int = 1) -> dict[str, Load]:
    """Return what a rank sees of each task in a step, in the mean over training, without those that rest.

    `divided`: micro-batches of so many times fewer images, and more of them.
    """
    loads = {}
    for task in sizes.tasks:
        feed = config.task(task)
        images = max(1, feed.loader.micro_batch // divided)
        count = feed.micro_batches_in(config.steps) / config.steps * feed.loader.micro_batch / images
        if count:
            boxes = sizes.boxes.get(task.name, BOXES)
            loads[task.name] = Load(images, feed.loader.image_size, count, boxes)
    return loads
