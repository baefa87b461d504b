"""A rank that is slower than the other is named, though the steps of both take as long."""

import platform
import re

import pytest

from ufo_large.testing.distributed import run_ranks

TASKS = ("a", "b")
STEPS, EVERY = 8, 2


def train_sleepily(stage: int, sleeper: int | None) -> list[str]:
    """Train with a rank that sleeps before its forward; return the lines that this rank printed."""
    import contextlib
    import io
    import time
    from collections import Counter
    from types import SimpleNamespace

    import torch

    from ufo_large.balancing import METHODS
    from ufo_large.distributed import comm, ds_config, zero
    from ufo_large.runs.schedule import Schedule
    from ufo_large.testing.tiny_steps import TinyStepModel, TinyStream
    from ufo_large.train.rank_times import RankTimesHook
    from ufo_large.train.steps import Feed, StepRunner
    from ufo_large.train.trainer import Trainer

    class Sleepy(TinyStepModel):
        def forward(self, batch):
            time.sleep(0.2 if comm.rank() == sleeper else 0.0)
            return super().forward(batch)

    class Stream(TinyStream):
        wait_s, canvases, epoch, bad_samples = 0.0, Counter(), 0.0, 0

    zero.init_distributed()
    model = Sleepy(TASKS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    config = ds_config.complete({"zero_optimization": {"stage": stage}}, micro_batch=4, clip_norm=None)
    engine = zero.ZeroEngine(model, optimizer, config)
    feeds = {t: Feed(loader=Stream(t, k), stages=((0, 1),)) for k, t in enumerate(TASKS)}
    runner = StepRunner(engine, feeds, METHODS["tbgn"].Config().build(TASKS, 0), total_steps=STEPS)
    settings = SimpleNamespace(
        steps=STEPS,
        evaluate_every=0,
        save_every=STEPS + 1,
        trace_every=0,
        schedule=Schedule(),
        optimizer=SimpleNamespace(learning_rate=0.1),
    )
    trainer = Trainer(settings, model, runner, [1.0])
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        trainer.fit([RankTimesHook(trainer.collective_waits, EVERY)])
    return [line for line in said.getvalue().splitlines() if "median" in line]


@pytest.mark.parametrize("stage", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_rank_that_sleeps_is_named_once_with_its_host(stage):
    told, other = run_ranks(train_sleepily, 2, stage, 1)
    (line,) = told
    words = (
        rf"step {4 * EVERY}: rank 1 on {re.escape(platform.node())} works (\S+) times as long as the median"
    )
    assert float(re.match(words, line)[1]) > 1.5
    assert other == []
