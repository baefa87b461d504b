"""Settings for the data, the machine and the time there is: input sizes, micro-batches, steps."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ufo_large.data.batching import Tokens
from ufo_large.data.shards import ShardSet, SplitReader
from ufo_large.finetuning.machine import GB, Machine
from ufo_large.planning.sizes import forward_flops
from ufo_large.planning.states import Counts, Sharding, states_of
from ufo_large.runs.config import RunConfig, TaskConfig
from ufo_large.structures import TaskInfo

LEVELS = (2.0, 1.4, 1.0, 0.7, 0.5)
"""Sides of the inputs, relative to the recipe's."""
EPOCHS, LEAST_STEPS, SHORT_RUN = 60, 20, 300
VALIDATIONS, VALIDATION_SHARE = 12, 0.25
RESERVE, PATIENCE = 0.1, 4
LARGEST_ASPECT = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """`level` scales input sides, `batch` micro-batches; both relative to the recipe's.

    `level` None leaves the inputs as they are: a trained run's, which its trunk knows.
    """

    level: float | None = 1.0
    batch: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Measured on this machine: seconds of one step, and of predicting one image of each task."""

    step_s: float
    image_s: Mapping[str, float]


def fitted(
    config: RunConfig, shards: ShardSet, tasks: Sequence[TaskInfo], ranks: int, size: Size
) -> RunConfig:
    """Return the config with feeds fitted to the tasks: the recipe's, in the data's aspect.

    Each stands where the config had it, unless several tasks share that entry: then under the task's name.
    """
    with torch.device("meta"):
        patch = Tokens.of(config.model.trunk.build_vit()).patch
    kinds = Counter(t.kind for t in tasks)
    feeds = {}
    for task in tasks:
        key = task.name if task.name in config.tasks or kinds[task.kind] > 1 else task.kind
        feeds[key] = _feed(config.task(task), shards.split(task.name, "train"), patch, ranks, size)
    return replace(config, tasks={**config.tasks, **feeds})


def _feed(feed: TaskConfig, reader: SplitReader, patch: int, ranks: int, size: Size) -> TaskConfig:
    loader = feed.loader
    aspect = float(np.median(reader.heights / reader.widths))
    sides = loader.image_size
    if size.level is not None:
        sides = input_size(sides, aspect, patch, size.level)
    images = max(1, min(round(loader.micro_batch * size.batch), len(reader) // ranks))
    return replace(feed, loader=replace(loader, image_size=sides, micro_batch=images))


def input_size(size: tuple[int, int], aspect: float, patch: int, level: float) -> tuple[int, int]:
    """Return (height, width) of the area of `size`, scaled by `level` a side, in the data's aspect.

    Whole patches, and four at least.
    """
    aspect = min(max(aspect, 1 / LARGEST_ASPECT), LARGEST_ASPECT)
    side = level * math.sqrt(size[0] * size[1])
    height, width = side * math.sqrt(aspect), side / math.sqrt(aspect)
    return tuple(max(4, round(s / patch)) * patch for s in (height, width))


def step_flops(config: RunConfig, tasks: Sequence[TaskInfo]) -> float:
    """Return the operations of one step on one rank, by the trunk alone; frozen blocks only predict."""
    with torch.device("meta"):
        trunk = config.model.trunk.build(tuple(t.name for t in tasks)).eval()
    feeds = [config.task(t) for t in tasks]
    per_image = {size: forward_flops(trunk, size) for size in {f.loader.image_size for f in feeds}}
    forward = sum(per_image[f.loader.image_size] * f.loader.micro_batch * f.micro_batches for f in feeds)
    still = 1.0 if config.model.trunk.frozen else config.model.trunk.frozen_blocks / trunk.depth
    return forward * (3 - 2 * still)


def require_memory(config: RunConfig, tasks: Sequence[TaskInfo], machine: Machine) -> None:
    """Raise ValueError where weights, gradients and moments alone are more than the machine has free."""
    with torch.device("meta"):
        counts = Counts.of(config.model.build(tuple(tasks)))
    stage, element = (0 if machine.ds == "none" else 3), (2 if machine.bf16 else 4)
    whole = Sharding(stage=stage, world=1, element=element, bucket=0)
    needed = sum(states_of(counts, whole, averaged=config.ema is not None).on_gpu.values())
    if needed > machine.memory:
        raise ValueError(too_large(f"its weights, gradients and moments take {needed / GB:.1f} GB", machine))


def too_large(told: str, machine: Machine) -> str:
    return (
        f"the model does not fit this machine: {told}, and there are {machine.memory / GB:.1f} GB. Give "
        "--freeze or --lora, a smaller trunk with --set model.trunk.name=vit_tiny_patch16_224, or more --gpus"
    )


def with_steps(
    config: RunConfig,
    shards: ShardSet,
    tasks: Sequence[TaskInfo],
    ranks: int,
    pace: Pace,
    seconds: float,
    spent: float = 0.0,
) -> RunConfig:
    """Return the config with as many steps and validations as `seconds` allow.

    At most EPOCHS of the data, or SHORT_RUN steps where that is more.

    `spent`: seconds gone before, and for starting what follows. Raises ValueError, with the time that would
    do, where there are fewer than for LEAST_STEPS, one validation and the evaluation.
    """
    validation = _prediction_s(shards, tasks, "val", pace)
    last = sum(_prediction_s(shards, tasks, split, pace) for split in evaluated_splits(shards, tasks))
    usable = (1 - RESERVE) * seconds - last
    least = LEAST_STEPS * pace.step_s + validation
    if usable < least:
        needed = (spent + (least + last) / (1 - RESERVE)) / 3600
        raise ValueError(
            f"--hours is too short: {LEAST_STEPS} steps of {pace.step_s:.2g} s, one validation of "
            f"{validation:.2g} s and the evaluation of {last:.2g} s would end after {needed:.2g} hours; give "
            f"--hours {math.ceil(1.2 * needed * 100) / 100:g} or more, or --freeze"
        )
    count = max(1, min(VALIDATIONS, int(VALIDATION_SHARE * usable / max(validation, 1e-9))))
    possible = int((usable - count * validation) / pace.step_s)
    wanted = max(EPOCHS * steps_per_epoch(config, shards, tasks, ranks), SHORT_RUN)
    every = max(1, max(LEAST_STEPS, min(possible, wanted)) // count)
    steps = every * count
    return replace(
        config,
        steps=steps,
        schedule=replace(config.schedule, warmup_steps=max(1, min(100, steps // 10))),
        evaluate_every=every,
        save_every=every,
        patience=PATIENCE,
        keep_best=True,
    )


def steps_per_epoch(config: RunConfig, shards: ShardSet, tasks: Sequence[TaskInfo], ranks: int) -> int:
    """Return the steps in which the largest task sees each of its images once."""
    with torch.device("meta"):
        tokens = Tokens.of(config.model.trunk.build_vit())
    readers = {t.name: shards.split(t.name, "train") for t in tasks}
    images = {t.name: _images(config.task(t), readers[t.name], tokens) * ranks for t in tasks}
    return max(math.ceil(len(readers[name]) / images[name]) for name in readers)


def _images(feed: TaskConfig, reader: SplitReader, tokens: Tokens) -> float:
    return max(feed.loader.batch_shapes(reader, tokens).mean_images * feed.micro_batches, 1e-9)


def _count(shards: ShardSet, task: TaskInfo, split: str) -> int:
    return len(shards.split(task.name, split)) if shards.has_split(task.name, split) else 0


def scored_split(shards: ShardSet, task: TaskInfo) -> str:
    """Return where a task is scored at the end: its test split, where that has ground truth, else val."""
    has_truth = shards.has_split(task.name, "test") and shards.split(task.name, "test").labeled
    return "test" if has_truth else "val"


def evaluated_splits(shards: ShardSet, tasks: Sequence[TaskInfo]) -> list[str]:
    """Return the splits that are predicted at the end: test where there is one, and all that score a task."""
    splits = {scored_split(shards, task) for task in tasks}
    splits |= {"test"} if any(shards.has_split(task.name, "test") for task in tasks) else set()
    return sorted(splits)


def _prediction_s(shards: ShardSet, tasks: Sequence[TaskInfo], split: str, pace: Pace) -> float:
    return sum(_count(shards, t, split) * pace.image_s[t.name] for t in tasks)
