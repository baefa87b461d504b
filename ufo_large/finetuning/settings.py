"""The settings of a run: chosen for data and machine, measured for a few steps, fitted to the time."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ufo_large.config import Problems, apply_overrides, read_json, to_dict, write_json
from ufo_large.data.shards import ShardSet
from ufo_large.finetuning.children import OUT_OF_MEMORY, ChildFailed, Children
from ufo_large.finetuning.choosing import (
    LEVELS,
    Pace,
    Size,
    fitted,
    require_memory,
    step_flops,
    steps_per_epoch,
    too_large,
    with_steps,
)
from ufo_large.finetuning.heads import with_heads_that_fit
from ufo_large.finetuning.machine import Machine
from ufo_large.finetuning.options import Options
from ufo_large.finetuning.pace import PACE_FILE
from ufo_large.finetuning.start import Start, start_from
from ufo_large.models.dense_values import PretrainedValues
from ufo_large.models.lora import LoraConfig
from ufo_large.routing import ROUTERS
from ufo_large.runs.config import RunConfig
from ufo_large.structures import TaskInfo
from ufo_large.train.pretrained import settled, weights_file
from ufo_large.train.run import check_evaluation, check_feeds

SETTINGS_FILE = "finetune.json"
WORTH_MEASURING = 200
"""Steps that an input size should allow by the first guess, or a smaller one is measured."""


def choose_settings(
    options: Options,
    shards: ShardSet,
    tasks: tuple[TaskInfo, ...],
    machine: Machine,
    children: Children,
    deadline: float,
) -> RunConfig:
    """Choose everything, measured where that can be."""
    start = start_from(options.init or ("hub" if machine.gpus else "none"), tasks, options.recipe)
    for told in start.told:
        print(f"start: {told}")
    config = narrowed(start.config, options)
    # what fits is measured here, not calculated
    config = replace(config, name="finetune", seed=options.seed, ds=machine.ds, check_memory=False)
    assignments = [a for a in options.assignments if not a.startswith("tasks.")]
    config, told = with_heads_that_fit(config, assignments, tasks)
    for line in told:
        print(f"start: {line}")
    config = _with_weights(config)
    require_memory(config, tasks, machine)
    size = _first_size(start, config, shards, tasks, machine, deadline)
    while True:
        chosen = fitted(config, shards, tasks, machine.ranks, size)
        chosen = apply_overrides(chosen, options.assignments)
        _check(chosen, shards, tasks)
        begun = time.monotonic()
        pace = _pace(chosen, shards, children, options.workdir)
        if pace is not None:
            break
        size = smaller_size(size, chosen, tasks, machine)
        print(f"out of memory; next: inputs x {size.level or 1:g}, micro-batches x {size.batch:g}")
    now = time.monotonic()
    left = deadline - now - 2 * (now - begun)  # training and evaluation take as long to start
    spent = 3600 * options.hours - left
    chosen = with_steps(chosen, shards, tasks, machine.ranks, pace, left, spent)
    chosen = apply_overrides(chosen, options.assignments)
    _tell(chosen, shards, tasks, machine, pace)
    return chosen


def _check(config: RunConfig, shards: ShardSet, tasks: tuple[TaskInfo, ...]) -> None:
    """Raise now what training would refuse after the measurement."""
    problems = Problems("this data with the settings chosen for it")
    check_feeds(config, tasks, shards, problems)
    check_evaluation(replace(config, evaluate_every=config.evaluate_every or 1), tasks, shards, problems)
    problems.raise_if_any()


def narrowed(config: RunConfig, options: Options) -> RunConfig:
    """Train adapters alone, or nothing of the trunk, where that is asked for."""
    if not (options.lora or options.freeze):
        return config
    if config.pretrained is None:
        raise ValueError("--lora and --freeze keep what was trained before: give --init RUN, FILE or hub")
    trunk = config.model.trunk
    if options.lora:
        trunk = replace(trunk, lora=trunk.lora or LoraConfig(), frozen_blocks=0)
    else:
        router = trunk.router if config.take_what_fits else ROUTERS["shared"].Config()
        trunk = replace(trunk, frozen=True, frozen_blocks=0, drop_path=0.0, lora=None, router=router)
    return replace(config, model=replace(config.model, trunk=trunk))


def _with_weights(config: RunConfig) -> RunConfig:
    """Fetch public weights and see whether they fit the trunk: now, not in the ranks."""
    if config.pretrained is None or config.take_what_fits:
        return config
    config = settled(config)
    PretrainedValues(config.model.trunk, weights_file(config))
    return config


def _first_size(
    start: Start,
    config: RunConfig,
    shards: ShardSet,
    tasks: tuple[TaskInfo, ...],
    machine: Machine,
    deadline: float,
) -> Size:
    """Return the largest inputs that the time allows by a guess; the measurement follows."""
    if not start.resize:
        return Size(level=None)
    left = deadline - time.monotonic()
    for level in LEVELS:
        size = Size(level=level)
        flops = step_flops(fitted(config, shards, tasks, machine.ranks, size), tasks)
        if flops / machine.guessed_flops * machine.ranks * WORTH_MEASURING < left:
            break
    return size


def smaller_size(size: Size, config: RunConfig, tasks: Sequence[TaskInfo], machine: Machine) -> Size:
    """Return the next smaller size after one that ran out of memory; ValueError where there is none."""
    if max(config.task(task).loader.micro_batch for task in tasks) > 1 and size.batch > 1 / 64:
        return replace(size, batch=size.batch / 2)
    smaller = [level for level in LEVELS if size.level is not None and level < size.level]
    if not smaller:
        raise ValueError(too_large("one image of the smallest inputs is too much", machine))
    return Size(level=smaller[0], batch=size.batch)


def _pace(config: RunConfig, shards: ShardSet, children: Children, workdir: Path) -> Pace | None:
    """Measure a config in processes of its own; None where it takes more memory than there is."""
    recipe, out = workdir / SETTINGS_FILE, workdir / PACE_FILE
    write_json(recipe, {"config": to_dict(config)})
    out.unlink(missing_ok=True)
    measuring = ("--measure", recipe, "--data", shards.root, "--workdir", workdir)
    code = children.run("launchers/finetune.py", *measuring, sharded=config.ds != "none")
    if code in OUT_OF_MEMORY:
        return None
    if code:
        raise ChildFailed(code)
    return Pace(**read_json(out, "measure again"))


def _tell(
    config: RunConfig, shards: ShardSet, tasks: Sequence[TaskInfo], machine: Machine, pace: Pace
) -> None:
    for task in tasks:
        loader = config.task(task).loader
        height, width = loader.image_size
        each = f" on each of {machine.ranks} GPUs" if machine.ranks > 1 else ""
        print(f"{task.name}: {loader.micro_batch} images of {height} x {width} per step{each}")
    epochs = config.steps / steps_per_epoch(config, shards, tasks, machine.ranks)
    print(
        f"{config.steps} steps of {pace.step_s:.2g} s, {epochs:.1f} epochs of the largest task, a validation "
        f"every {config.evaluate_every}; about {config.steps * pace.step_s / 60:.0f} minutes of training"
    )
