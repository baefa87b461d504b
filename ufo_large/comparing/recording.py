"""Make the record of a finished run from what lies in its folder."""

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from ufo_large.comparing.plan import Run, data_hash
from ufo_large.comparing.records import Record
from ufo_large.comparing.trainings import PROTOCOL, Workshop
from ufo_large.config import read_json
from ufo_large.data.batching import Tokens
from ufo_large.data.shards import ShardSet
from ufo_large.evaluation.run import METRICS_FILE
from ufo_large.models.multitask import MultitaskModel
from ufo_large.runs.config import RunConfig
from ufo_large.structures import TaskInfo, role_of
from ufo_large.tracking.environment import describe_environment
from ufo_large.tracking.jsonl import FILE_NAME as METRICS_LOG
from ufo_large.tracking.jsonl import read_metrics, training_seconds
from ufo_large.tracking.panels import headlines


def record_of(workshop: Workshop, run: Run, wall_s: float | None) -> Record:
    """Return what a comparison keeps of a run that is trained and scored."""
    folder, found = workshop.folder(run), describe_environment()
    saved = folder.read()
    log = read_metrics(folder.root / METRICS_LOG)
    gpus = found["hardware"]["gpus"]
    return Record(
        label=run.label,
        plan=run.plan,
        ranks=workshop.ranks,
        data=data_hash(run.data),
        settings=list(run.settings),
        scores={split: _figures(workshop, run, split) for split in workshop.splits},
        traits=traits_of(log),
        **sizes_of(saved.config, saved.tasks),
        images=images_of(saved.config, saved.tasks, ShardSet.open(run.data), workshop.ranks),
        seconds=training_seconds(log),
        wall_s=wall_s,
        recorded=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=found["commit"]["hash"],
        processor=found["hardware"]["processor"],
        gpu=gpus[0]["name"] if gpus else None,
        torch=found["versions"]["torch"],
    )


def _figures(workshop: Workshop, run: Run, split: str) -> dict[str, Any]:
    """Return the headline metrics that a run has, their mean, and each task's own."""
    file = workshop.folder(run).own_results(split) / METRICS_FILE
    scores = read_json(file, "score the run again")
    if scores["protocol"] != PROTOCOL:
        raise ValueError(f"{file}: protocol {scores['protocol']}, not {PROTOCOL}; remove it")
    kept = {name: scores[name] for name in headlines() if scores.get(name) is not None}
    return kept | {"tasks": scores["tasks"]}


def images_of(config: RunConfig, tasks: Sequence[TaskInfo], shards: ShardSet, ranks: int) -> dict[str, float]:
    """Return, by task, how many images a run sees, counting each time."""
    with torch.device("meta"):
        tokens = Tokens.of(config.model.trunk.build_vit())
    found = {}
    for task in tasks:
        feed = config.task(task)
        images = feed.loader.batch_shapes(shards.split(task.name, "train"), tokens).mean_images
        found[task.name] = images * ranks * feed.micro_batches_in(config.steps)
    return found


def sizes_of(config: RunConfig, tasks: Sequence[TaskInfo]) -> dict[str, Any]:
    """Return `parameters` in all, and by task those that a token meets when predicting: `active`."""
    with torch.device("meta"):
        model = config.model.build(tuple(tasks))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "active": {task.name: _active(model, task.name) for task in tasks},
    }


def _active(model: MultitaskModel, task: str) -> int:
    banks = model.trunk.banks().values()
    in_banks = {p for bank in banks for p in bank.parameters()}
    outside = (p for p in model.parameters() if p not in in_banks and role_of(p).task in (None, task))
    return sum(p.numel() for p in outside) + sum(bank.active(task) for bank in banks)


def traits_of(log: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return each task's typical gradient norm (geometric mean over the steps) and the mean conflict rate.

    `log` has a row per step. A single-task run has no conflict rate: None.
    """
    norms: dict[str, list[float]] = {}
    for row in log:
        for key, value in row.items():
            if key.startswith("balance/") and key.endswith("/grad_norm") and value > 0:
                norms.setdefault(key.split("/")[1], []).append(value)
    conflicts = [row["balance/conflict_rate"] for row in log if "balance/conflict_rate" in row]
    return {
        "grad_norm": {task: statistics.geometric_mean(norms[task]) for task in sorted(norms)},
        "conflict_rate": statistics.mean(conflicts) if conflicts else None,
    }
