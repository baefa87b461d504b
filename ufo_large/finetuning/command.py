"""Finetune on a folder of data: shards, settings, a short measurement, training, evaluation, export."""

import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ufo_large.config import (
    apply_overrides,
    read_json,
    require_writable,
    to_dict,
    write_json,
    write_text_whole,
)
from ufo_large.data.shard_index import DATASET_FILE
from ufo_large.data.sharding import ShardingOptions, make_shards, parse_class_counts
from ufo_large.data.shards import ShardSet
from ufo_large.data.val_split import read_held_out
from ufo_large.distributed.checkpoint import complete_checkpoints
from ufo_large.finetuning.children import ChildFailed, Children
from ufo_large.finetuning.choosing import evaluated_splits, scored_split
from ufo_large.finetuning.keeping_time import train_in_time
from ufo_large.finetuning.machine import Machine, this_machine
from ufo_large.finetuning.options import Options
from ufo_large.finetuning.settings import SETTINGS_FILE, choose_settings
from ufo_large.processes.supervising import REFUSED
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import RunFolder
from ufo_large.structures import TaskInfo
from ufo_large.tracking.banner import print_places
from ufo_large.train.facts import next_commands, plugin_words
from ufo_large.train.run import trained_tasks

FEW_IMAGES = 20


def finetune(options: Options, root: Path, plugins: Sequence[str] = ()) -> None:
    """Do everything; `root` holds launchers/. Raises ValueError for what will not work, ChildFailed after."""
    deadline = time.monotonic() + 3600 * options.hours
    machine = this_machine(options.gpus)
    print(f"machine: {machine}")
    children = Children(root=root, machine=machine, plugins=plugins)
    run = RunFolder(options.workdir)
    require_writable(run.root, "--workdir")
    settings = run.root / SETTINGS_FILE
    require_same_data(options, settings)
    shards, tasks = _shards(options, machine)
    if complete_checkpoints(run.checkpoints):
        print(f"{run.root} has begun: it goes on with the settings in {settings}")
        config = apply_overrides(load_recipe(str(settings)), options.assignments)
    else:
        config = choose_settings(options, shards, tasks, machine, children, deadline)
    before = settings.read_text() if settings.is_file() else None
    write_json(settings, {"begun_with": _begun_with(options), "config": to_dict(config)})
    fixed = any(assignment.startswith("steps=") for assignment in options.assignments)
    ends_at = math.inf if fixed else deadline
    try:
        train_in_time(run.root, settings, config, shards.root, children, ends_at)
    except ChildFailed as error:
        if error.code == REFUSED and before is not None:  # by a --set that does not fit what is there
            write_text_whole(settings, before)
        raise
    _finish(run, shards, tasks, children)


def _places(options: Options) -> list[str]:
    """Return what `--data` names, wherever the command is typed."""
    named = (entry.rpartition("=") for entry in map(str, options.data))
    return [f"{name}{equals}{Path(path).absolute()}" for name, equals, path in named]


def _begun_with(options: Options) -> str:
    """Return all that decides what lies in the shards."""
    classes = f" --classes {shlex.join(options.classes)}" if options.classes else ""
    chosen = f"--val-share {options.val_share} --seed {options.seed}{classes}"
    return f"--data {shlex.join(_places(options))} {chosen}"


def require_same_data(options: Options, settings: Path) -> None:
    """Raise ValueError where a run lies here whose shards would be replaced by others."""
    run = settings.parent
    if not settings.is_file():
        if complete_checkpoints(RunFolder(run).checkpoints):
            raise ValueError(f"{run} holds a run that finetune.py did not begin; give another --workdir")
        return
    body = read_json(settings, f"remove {settings}")
    before = body.get("begun_with", _begun_with(options)) if isinstance(body, dict) else None
    if before != _begun_with(options):
        raise ValueError(
            f"{run} was begun with {before}, not with {_begun_with(options)}; give another --workdir, with "
            f"--init {run} to start from what it learned"
        )


def _shards(options: Options, machine: Machine) -> tuple[ShardSet, tuple[TaskInfo, ...]]:
    """Check and shard the data, hold images out where there is no val split, and say what there is.

    A run that has begun keeps its shards, whatever became of the data.
    """
    out = options.workdir / "shards"
    if complete_checkpoints(RunFolder(options.workdir).checkpoints) and (out / DATASET_FILE).is_file():
        told = f"data that has changed since begins another: --workdir NEW --init {options.workdir}"
        print(f"{out}: the run goes on with the shards that it began with; {told}")
        shards = ShardSet.open(out)
        return shards, trained_tasks(shards)
    choice = ShardingOptions(
        jobs=machine.cores,
        counts=parse_class_counts(options.classes),
        val_share=options.val_share,
        seed=options.seed,
    )
    make_shards(options.data, out, choice)
    shards = ShardSet.open(out)
    tasks = trained_tasks(shards)
    for told in (*read_held_out(out), *notes(shards, tasks)):
        print(told)
    require_countable(shards, tasks)
    return shards, tasks


def _shows_nothing(shards: ShardSet, task: TaskInfo, split: str) -> bool:
    """Whether a split has ground truth, and that shows no instance of any class."""
    if not (task.num_classes and shards.has_split(task.name, split)):
        return False
    reader = shards.split(task.name, split)
    return reader.labeled and not any(reader.class_histogram)


def require_countable(shards: ShardSet, tasks: Sequence[TaskInfo]) -> None:
    """Raise ValueError for ground truth that the evaluation at the end could not score."""
    for task in tasks:
        split = scored_split(shards, task)
        if _shows_nothing(shards, task, split):
            raise ValueError(
                f"{task.name}: no image of its {split} split shows one of the {task.num_classes} classes, so "
                f"nothing could be scored; label some, or take {split} out of --data"
            )


def notes(shards: ShardSet, tasks: Sequence[TaskInfo]) -> list[str]:
    """Return what the user should know of the data before training, with the remedy."""
    told = []
    for task in tasks:
        train = shards.split(task.name, "train")
        splits = ("train", "val", "test")
        counts = {s: len(shards.split(task.name, s)) for s in splits if shards.has_split(task.name, s)}
        listed = ", ".join(f"{split} {count}" for split, count in counts.items())
        told.append(f"{task.name}: {task.kind}, {task.num_classes} classes; images: {listed}")
        if _shows_nothing(shards, task, "val"):
            told.append(
                f"{task.name}: no image of its val split shows a class, so validation says nothing of it; "
                "label some, or take val out of --data: then a part of train is held out"
            )
        if len(train) < FEW_IMAGES:
            told.append(
                f"{task.name}: {len(train)} images to train on are few: figures will differ much from seed "
                "to seed; a hundred per class are a good start"
            )
        seen = np.bincount(train.labels, minlength=task.num_classes)
        single = [name for name, count in zip(task.class_names, seen, strict=True) if count <= 1]
        if single:
            told.append(
                f"{task.name}: one example or none to train {', '.join(single[:10])} on"
                f"{' and others' if len(single) > 10 else ''}: add some, or drop the class"
            )
    return told


def _finish(run: RunFolder, shards: ShardSet, tasks: Sequence[TaskInfo], children: Children) -> None:
    """Evaluate and export the run; say where everything lies and what to type next."""
    places = [("weights", run.weights), ("one file", run.root / "export/model.safetensors")]
    for split in (splits := evaluated_splits(shards, tasks)):
        scoring = ("--workdir", run.root, "--data", shards.root, "--split", split, "--protocol", "standard")
        children.must("eval/run_all.py", *scoring, sharded=children.machine.ranks > 1)
        results, of = run.own_results(split), f" of {split}" if len(splits) > 1 else ""
        places += [(f"submission{of}", results / "submission.json"), (f"report{of}", results / "report.html")]
    children.must("launchers/export.py", "--workdir", run.root, "--to", "safetensors")
    again = ["sh", "launchers/finetune.sh", "--data", "MORE_DATA", "--init", str(run.root)]
    again += ["--workdir", f"{run.root}-next"]
    _, _, predict, export = next_commands(run, str(shards.root), tasks)
    print_places(places, [predict, export, [*again, *plugin_words()]])
