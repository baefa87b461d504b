"""Measure a few steps and predictions of a config on this machine, on all ranks."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from ufo_large.config import write_json
from ufo_large.data.shards import ShardSet
from ufo_large.distributed import comm, zero
from ufo_large.finetuning.choosing import Pace
from ufo_large.runs.config import RunConfig
from ufo_large.structures import on_cpu
from ufo_large.train.run import build, train_readers, trained_tasks
from ufo_large.train.trainer import Trainer

PACE_FILE = "pace.json"
STEPS, WARM_UP = 3, 2


def measure(config: RunConfig, data: str, ds: dict[str, Any] | None, out: Path) -> None:
    """Write the pace of a config to `out`. Nothing of a run is written.

    A rank that runs out of memory ends as one that the kernel killed, so that the launcher ends the others,
    which wait for it.
    """
    device = zero.init_distributed()
    try:
        pace = _measured(config, data, ds, device)
    except (torch.OutOfMemoryError, MemoryError) as error:
        print(f"out of memory: {error}", flush=True)
        os._exit(128 + signal.SIGKILL)  # a rank that is waited for may hang where it ends in order
    if comm.is_main():
        write_json(out, {"step_s": pace.step_s, "image_s": dict(pace.image_s)})


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
        for _ in range(2):
            started = time.perf_counter()
            for prediction in trainer.model.predict(batch):
                on_cpu(prediction)  # waits for the GPU, as an evaluation does
    return (time.perf_counter() - started) / len(batch.samples) / comm.world_size()
