"""Put a run together from its config, its data and its DeepSpeed config; train it; leave the weights."""

import contextlib
import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ufo_large.config import Problems, did_you_mean, to_dict
from ufo_large.data.batching import AspectBuckets, Tokens
from ufo_large.data.mixing import TaskMix
from ufo_large.data.shards import ShardSet, SplitReader
from ufo_large.distributed import comm, ds_config, zero
from ufo_large.distributed.checkpoint import (
    finished_steps,
    load_checkpoint,
    save_weights,
    set_aside,
    set_aside_later,
)
from ufo_large.evaluation.evaluator import Evaluator
from ufo_large.kinds import KINDS
from ufo_large.processes.heartbeat import HEARTBEAT, beat
from ufo_large.routing import Route
from ufo_large.runs.config import EVALUATED, RunConfig
from ufo_large.runs.folder import RunFolder
from ufo_large.structures import TaskInfo
from ufo_large.tracking import save_environment
from ufo_large.tracking.banner import print_end, print_start
from ufo_large.tracking.plan_check import save_plan
from ufo_large.train import attention_kernels
from ufo_large.train.attention_products import choose_products
from ufo_large.train.best import Best
from ufo_large.train.building import build_engine, build_model, give_initial_weights
from ufo_large.train.deadline import Deadline
from ufo_large.train.facts import facts_of, next_commands, places_of
from ufo_large.train.failures import told_by_all_ranks
from ufo_large.train.hooks import CheckpointHook, EvaluationHook, LogHook
from ufo_large.train.limits import Limits
from ufo_large.train.lock import training_alone
from ufo_large.train.not_finite import NotFinite
from ufo_large.train.planned import Planned, going_on, planned
from ufo_large.train.pretrained import settled, settled_as, weights_file
from ufo_large.train.rank_times import RankTimesHook
from ufo_large.train.resuming import choose_checkpoint, require_same, whole_checkpoint
from ufo_large.train.speed import ImageCosts
from ufo_large.train.steps import Feed, StepRunner
from ufo_large.train.trainer import Trainer
from ufo_large.train.watchdog import Watchdog


def train(
    config: RunConfig,
    data: str,
    workdir: Path,
    ds: dict[str, Any] | None,
    resume: str = "none",
    limits: Limits = Limits(),
    auto: bool = False,
) -> Trainer | None:
    """Train on all ranks; return None where all steps were done before. Signals end it at the step's end.

    `ds`: the checked DeepSpeed JSON, or None for one process without DeepSpeed. `resume`: `none`, `auto` (the
    newest whole checkpoint, or a fresh start where there is none) or a checkpoint folder. `auto`: the plan
    chooses checkpointing and micro-batches; a run that goes on keeps its own. Raises ValueError, before
    training, for whatever does not fit together or into the GPU, and where another run trains in `workdir`.
    """
    device = zero.init_distributed()
    with contextlib.ExitStack() as held:
        comm.agreed(lambda: held.enter_context(training_alone(workdir)) if comm.is_main() else None)
        held.enter_context(Watchdog(limits.hang_timeout_s, workdir / "hangs"))
        held.enter_context(told_by_all_ranks(workdir))
        folder = RunFolder(workdir)
        saved = comm.agreed(lambda: going_on(folder, resume)) if auto else None
        asked = planned(config, data, ds, device, auto, saved)
        return _train(asked, data, folder, ds, resume, device, Deadline(limits.ends_at))


def _train(
    asked: Planned,
    data: str,
    folder: RunFolder,
    ds: dict[str, Any] | None,
    resume: str,
    device: torch.device,
    deadline: Deadline,
) -> Trainer | None:
    config, workdir = asked.config, folder.root
    shards, tasks, readers, checkpoint = comm.agreed(lambda: prepare(config, data, folder, ds, resume))
    require_same(checkpoint)
    if checkpoint is None and resume == "auto" and comm.is_main():
        print(f"--resume auto: no whole checkpoint in {folder.checkpoints}; the run starts from step 0")
    if told := already_done(config, folder, checkpoint):
        if comm.is_main():
            print(told)
        return None
    if checkpoint is not None:
        checkpoint = whole_checkpoint(folder, checkpoint, resume)
    best = best_of(config, folder, checkpoint)
    config = settled(config) if checkpoint is None else settled_as(config, folder.read().config)
    trainer = build(config, tasks, readers, ds, device, fresh=checkpoint is None)
    trainer.runner.not_finite = NotFinite(folder.not_finite, config.on_not_finite, config.max_skipped_steps)
    trainer.runner.not_finite.read_tried()
    if checkpoint is not None:
        finished, state = load_checkpoint(checkpoint, trainer.runner.engine, verify=False)
        comm.agreed(lambda: trainer.load_state_dict(finished, state))
        # where it had stopped early and ended before its weights were written, and patience is still the same
        trainer.is_stopped &= best is not None and best.is_over(finished)
    else:
        torch.manual_seed(config.seed + 1 + comm.rank())  # ranks drop different paths
    if comm.is_main():
        warn_of_unused_names(config, tasks)
        warn_of_buckets(config, tasks)
        folder.write(config, tasks, shards.fingerprint, data, ds)
        save_environment(workdir)
        save_plan(workdir, asked.plan, trainer.finished)
        if checkpoint is not None:
            for left in set_aside_later(checkpoint):
                print(f"the run goes on from {checkpoint.name}; the later checkpoint is now {left}")
            if folder.weights.exists():  # of an earlier end: nobody shall take them for this one's
                print(f"the run goes on; the weights of its earlier end are now {set_aside(folder.weights)}")
        print_start(facts_of(config, trainer.model, readers, checkpoint))
    dtype = next(trainer.model.parameters()).dtype
    attention = attention_kernels.fastest_attention(config, tasks, device, dtype)
    if attention and comm.is_main():
        print(attention_kernels.told(attention))
    begun, done_before = time.monotonic(), trainer.finished
    tracker = config.tracking.build(
        workdir,
        total_steps=config.steps,
        run_config=to_dict(config),
        rank=comm.rank(),
        resume_step=None if checkpoint is None else trainer.finished,
    )
    with tracker, attention_kernels.preferring(attention):
        hooks = [LogHook(tracker, config.log_every, config.steps), RankTimesHook(trainer.collective_waits)]
        if config.evaluate_every:
            evaluator = validator(config, shards, device, trainer.model.trunk.stride)
            pictures = config.tracking.pictures_wanted()
            hooks.append(EvaluationHook(trainer, evaluator, tracker, pictures, best))
        try:
            trainer.fit([*hooks, CheckpointHook(trainer, folder.checkpoints, best)], deadline)
        except Exception as error:
            error.add_note(f"raised on rank {comm.rank()} after {trainer.finished} finished steps")
            raise
    if trainer.is_interrupted:
        if comm.is_main():
            done, reason = f"{trainer.finished} of {config.steps} steps", trainer.interruption.reason
            print(f"{reason}: saved after {done}; --resume auto goes on")
        return trainer
    if trainer.is_stopped and comm.is_main():
        print(f"no better validation for {config.patience} times: stopped after {trainer.finished} steps")
    with HEARTBEAT.slowly():
        beat("writing the weights")
        if best is None or not best.copy_to(folder.weights):
            with trainer.averaged():
                save_weights(folder.weights, trainer.runner.engine)
    if comm.is_main():
        steps, seconds = trainer.finished - done_before, time.monotonic() - begun
        print_end(places_of(folder), next_commands(folder, data, tasks), steps, seconds)
    return trainer


def already_done(config: RunConfig, folder: RunFolder, checkpoint: Path | None) -> str:
    """Say why nothing is left to train in this folder; "" where something is. On all ranks."""
    if checkpoint is None or not folder.weights.exists():
        return ""
    finished, best = finished_steps(checkpoint), best_of(config, folder, checkpoint)
    if best is not None and best.is_over(finished):
        return f"{folder.root} stopped early, {finished} of {config.steps} steps; --set patience=0 goes on"
    if finished == config.steps:
        return (
            f"{folder.root} is finished: {config.steps} of {config.steps} steps; --set steps=N goes on to N"
        )
    return ""


def best_of(config: RunConfig, folder: RunFolder, checkpoint: Path | None) -> Best | None:
    """Return what keeps the best weights, where the run does; it goes on from `checkpoint`."""
    if not (config.keep_best or config.patience):
        return None
    resumed = 0 if checkpoint is None else finished_steps(checkpoint)
    return Best(folder.best, config.evaluate_every, config.patience, resumed)


def prepare(
    config: RunConfig, data: str, folder: RunFolder, ds: dict[str, Any] | None, resume: str
) -> tuple[ShardSet, tuple[TaskInfo, ...], dict[str, SplitReader], Path | None]:
    """Open and check everything; write nothing. Returns (shards, tasks, their train readers, checkpoint)."""
    shards = ShardSet.open(data)
    tasks = trained_tasks(shards)
    checkpoint = choose_checkpoint(folder, resume)
    check(config, tasks, shards, folder, checkpoint, ds)
    if comm.is_main():
        config.tracking.require_packages()
    return shards, tasks, train_readers(shards, tasks), checkpoint


def train_readers(shards: ShardSet, tasks: tuple[TaskInfo, ...]) -> dict[str, SplitReader]:
    return {task.name: shards.split(task.name, "train") for task in tasks}


def validator(config: RunConfig, shards: ShardSet, device: torch.device, patch: int) -> Evaluator:
    """Return what evaluates the run's split while it trains."""
    return Evaluator(
        shards=shards,
        loaders={key: task.loader for key, task in config.tasks.items()},
        split=config.evaluate_split,
        only=tuple(task.name for task in trained_tasks(shards)),
        patch=patch,
        device=device,
        show_progress=False,
    )


def trained_tasks(shards: ShardSet) -> tuple[TaskInfo, ...]:
    """Return the tasks that have a train split."""
    tasks = tuple(t for t in shards.tasks if shards.has_split(t.name, "train"))
    if not tasks:
        raise ValueError("the shards hold no train split of any task; make them from a train root too")
    return tasks


def check(
    config: RunConfig,
    tasks: tuple[TaskInfo, ...],
    shards: ShardSet,
    folder: RunFolder,
    checkpoint: Path | None,
    ds: dict[str, Any] | None,
) -> None:
    """Raise one ValueError with everything that does not fit, before anything is built."""
    problems = Problems(f"recipe {config.name!r} on this data")
    for task in tasks:
        for look in (config.task, config.model.head_of):
            try:
                look(task)
            except ValueError as error:
                problems.add(str(error))
    if not problems.messages:
        try:
            TaskMix({task.name: config.task(task).stages for task in tasks})
        except ValueError as error:
            problems.add(str(error))
    if not problems.messages:
        check_feeds(config, tasks, shards, problems)
    check_evaluation(config, tasks, shards, problems)
    if config.take_what_fits and checkpoint is None:
        try:
            trained_for(config)
        except ValueError as error:
            problems.add(str(error))
    elif config.pretrained is not None and checkpoint is None:
        check_classes(Path(config.pretrained), tasks, problems)
    if (off := config.model.trunk.frozen_unless) and config.pretrained is None:
        problems.add(
            "the trunk's weights are frozen, and would be random here: give --set pretrained=hub or "
            f"pretrained=FILE, or --set model.trunk.{off}"
        )
    if ds is None and comm.world_size() > 1:
        problems.add("--ds none trains in one process; start it without the deepspeed launcher")
    if ds is not None and not torch.distributed.is_initialized():
        problems.add("start with `deepspeed --num_gpus N launchers/train.py ...`, or give --ds none")
    if checkpoint is not None:
        saved = folder.read()
        if saved.fingerprint != shards.fingerprint:
            problems.add(
                f"{folder.root} was trained on other shards ({saved.data}, fingerprint "
                f"{saved.fingerprint[:12]}; these have {shards.fingerprint[:12]}); "
                "give the same --data or another --workdir"
            )
        if saved.config.model != settled_as(config, saved.config).model:
            problems.add(
                f"{folder.root} holds another model; give the same recipe and --set as before, or train the "
                "other one in another --workdir, from one task's trunk (launchers/export.py --to timm, then "
                "--set pretrained=that folder) or from public weights"
            )
        if (done := finished_steps(checkpoint)) > config.steps:
            problems.add(
                f"{checkpoint} has {done} finished steps, more than steps={config.steps}; give as many or "
                "more with --set steps=N, or an earlier checkpoint with --resume"
            )
    problems.raise_if_any()


def check_feeds(config: RunConfig, tasks: tuple[TaskInfo, ...], shards: ShardSet, problems: Problems) -> None:
    """Say what of routing and loaders does not fit the trunk, which is sized up, not built, or the data."""
    try:
        with torch.device("meta"):
            vit = config.model.trunk.build_vit()
        config.model.trunk.router.build(tuple(task.name for task in tasks), Route(), len(vit.blocks))
        tokens = Tokens.of(vit)
    except ValueError as error:
        problems.add(str(error))
        return
    fixed_from = getattr(config.model.trunk.router, "decide_at", math.inf) * config.steps
    for task in tasks:
        begins = next((step for step, count in config.task(task).stages if count), 0)
        if begins >= fixed_from:
            told = f"rests until step {begins}, and the router fixes its choice from step {fixed_from:g} on"
            problems.add(
                f"task {task.name!r} {told}; start it earlier, or raise model.trunk.router.decide_at"
            )
        reader = shards.split(task.name, "train")
        try:
            config.task(task).loader.build(reader, task, 0, 1, config.seed, tokens)
        except ValueError as error:
            problems.add(str(error))


def trained_for(config: RunConfig) -> tuple[TaskInfo, ...]:
    """Return the tasks of the run whose weights this one starts from, where it takes what fits of them."""
    if not config.take_what_fits:
        return ()
    if config.pretrained is None:
        raise ValueError("take_what_fits has an effect with the weights of a run: set pretrained=RUN/weights")
    return RunFolder(Path(config.pretrained).parent).read_tasks()


def check_classes(pretrained: Path, tasks: tuple[TaskInfo, ...], problems: Problems) -> None:
    """Say where the run whose weights these are had a task's classes in another order: shapes would fit."""
    folder = RunFolder(pretrained.parent)
    if pretrained.resolve() != folder.weights.resolve() or not folder.config_file.exists():
        return
    trained = {task.name: task for task in folder.read_tasks()}
    for task in tasks:
        before = trained.get(task.name, task)
        if (before.kind, before.class_names) != (task.kind, task.class_names):
            problems.add(
                f"task {task.name!r}: the run of pretrained={pretrained} had other classes, or in another "
                "order; make the shards with make_shards.py --like that run's shards, or rename the task"
            )


def warn_of_unused_names(config: RunConfig, tasks: tuple[TaskInfo, ...]) -> None:
    """Tell of settings for tasks that this data does not have; they may be meant for other data."""
    names = [t.name for t in tasks]
    for field, entries in (
        ("tasks", config.tasks),
        ("model.heads", config.model.heads),
        ("optimizer.head_rates", config.optimizer.head_rates),
    ):
        for name in sorted(set(entries) - {*names, *KINDS}):
            hint = did_you_mean(name, [*names, *KINDS])
            warnings.warn(f"{field}.{name} has no effect: no such task in this data.{hint}", stacklevel=3)


def warn_of_buckets(config: RunConfig, tasks: tuple[TaskInfo, ...]) -> None:
    """Tell where pictures are shown on other canvases in training than later."""
    for task in tasks:
        loader = config.task(task).loader
        if isinstance(loader.shapes, AspectBuckets.Config):
            size = "x".join(map(str, loader.image_size))
            told = f"trains on canvases of its pictures' aspects, and is scored and predicts at {size} alone"
            advice = f"give tasks.{task.name}.loader.image_size the aspect that most of them have"
            warnings.warn(f"task {task.name!r} {told}; {advice}", stacklevel=3)


def check_evaluation(
    config: RunConfig, tasks: tuple[TaskInfo, ...], shards: ShardSet, problems: Problems
) -> None:
    """Say where there is nothing to evaluate, and which split there is."""
    if not config.evaluate_every:
        if config.keep_best or config.patience:
            problems.add("keep_best and patience have an effect with evaluate_every only; set it too")
        if config.evaluate_split != "val":
            problems.add("evaluate_split has an effect with evaluate_every only; set both")
        return
    labeled = {
        split
        for split in EVALUATED
        if any(shards.has_split(t.name, split) and shards.split(t.name, split).labeled for t in tasks)
    }
    if config.evaluate_split not in labeled:
        remedy = " or ".join(f"--set evaluate_split={s}" for s in sorted(labeled)) or "--set evaluate_every=0"
        problems.add(f"no task has a labelled split {config.evaluate_split!r} to evaluate; give {remedy}")


def build(
    config: RunConfig,
    tasks: tuple[TaskInfo, ...],
    readers: Mapping[str, SplitReader],
    ds: dict[str, Any] | None,
    device: torch.device,
    fresh: bool = True,
) -> Trainer:
    """Build model, engine, loaders and balancer; equal on all ranks.

    `fresh`: give the model its initial weights (not needed where a checkpoint follows).
    """
    if ds is not None:
        largest = max(t.loader.micro_batch for t in config.tasks.values())
        ds = ds_config.complete(ds, largest, config.optimizer.clip_norm or None)
    model = build_model(config.model, tasks, ds)
    if fresh:
        give_initial_weights(model, config.seed, weights_file(config), trained_for(config))
    optimizer = config.optimizer.build(model)
    engine = build_engine(model, optimizer, ds, device, config.optimizer.clip_norm or None)
    dtype = next(model.parameters()).dtype
    if choose_products(model.trunk, config, tasks, device, dtype) and comm.is_main():
        print("attention as matrix products: faster than torch's kernel in bfloat16 on this processor")
    feeds, tokens = {}, Tokens.of(model.trunk.vit)
    for task in tasks:
        feed, reader = config.task(task), readers[task.name]
        loader = feed.loader.build(reader, task, comm.rank(), comm.world_size(), config.seed, tokens)
        feeds[task.name] = Feed(loader=loader, stages=feed.stages)
    balancer = config.balancer.build(tuple(t.name for t in tasks), config.seed)
    runner = StepRunner(engine, feeds, balancer, config.steps, config.log_every)
    ema = None if config.ema is None else config.ema.build(engine)
    rate_scales = [group["rate_scale"] for group in optimizer.param_groups]
    return Trainer(config, model, runner, rate_scales, ema, ImageCosts(model))
