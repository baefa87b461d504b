"""Measure a few steps and predictions of a config on this machine, on all ranks."""

import time
from pathlib import Path
from typing import Any

import torch

from ufo_large.config import write_json
from ufo_large.data.shards import ShardSet
from ufo_large.distributed import comm, zero
from ufo_large.finetuning.choosing import Pace
from ufo_large.runs.config import RunConfig
from ufo_large.train.run import build, train_readers, trained_tasks
from ufo_large.train.trainer import Trainer

PACE_FILE = "pace.json"
STEPS, WARM_UP = 3, 2


def measure(config: RunConfig, data: str, ds: dict[str, Any] | None, out: Path) -> None:
    """Write the pace of a config to `out`, or {"out_of_memory": true}. Nothing of a run is written."""
    device = zero.init_distributed()
    try:
        pace = _measured(config, data, ds, device)
        found = {"step_s": pace.step_s, "image_s": dict(pace.image_s)}
    except (torch.OutOfMemoryError, MemoryError):
        found = {"out_of_memory": True}
    if comm.is_main():
        write_json(out, found)


def _measured(config: RunConfig, data: str, ds: dict[str, Any] | None, device: torch.device) -> Pace:
    shards = ShardSet.open(data)
    tasks = trained_tasks(shards)
    trainer = build(config, tasks, train_readers(shards, tasks), ds, device)
    rates = [0.0 for _ in trainer.rate_scales]
    trainer.model.train()
    for step in range(WARM_UP):
        trainer.runner.run(step, rates)
    started = time.perf_counter()
    for step in range(WARM_UP, WARM_UP + STEPS):
        trainer.runner.run(step, rates)
    step_s = (time.perf_counter() - started) / STEPS
    image_s = {task.name: _prediction_s(trainer, task.name) for task in tasks}
    for feed in trainer.runner.feeds.values():
        feed.loader.close()
    return Pace(step_s=step_s, image_s=image_s)


def _prediction_s(trainer: Trainer, task: str) -> float:
    """Return the seconds of predicting one image, the second batch of two: the first one warms up."""
    trainer.model.eval()
    batch = next(trainer.runner.feeds[task].loader).to(trainer.runner.engine.device)
    with trainer.runner.engine.predicting(), torch.no_grad():
        trainer.model.predict(batch)
        started = time.perf_counter()
        trainer.model.predict(batch)
    return (time.perf_counter() - started) / len(batch.samples) / comm.world_size()
