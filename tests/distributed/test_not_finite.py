"""What is not finite on one rank stops all ranks together, with task and step, before a parameter moves."""

import numpy as np
import pytest
import torch

from ufo_large.testing.distributed import run_ranks

TASKS = ("a", "b", "c")
RANKS = 2


class Poison(torch.autograd.Function):
    """Pass a tensor on; give it a gradient that is not a number."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def take_steps(stage: int, kind: str, count: int) -> dict:
    """Step 0 goes well; in step 1 task b goes wrong on rank 1 alone. Return what this rank raised.

    It is the first of the step's `count` micro-batches of the task that goes wrong.
    """
    from ufo_large.balancing import METHODS
    from ufo_large.distributed import comm, ds_config, zero
    from ufo_large.tasks.finite import FiniteWatch
    from ufo_large.testing.tiny_steps import TinyStepModel, TinyStream
    from ufo_large.train.steps import Feed, StepRunner

    class Failing(TinyStepModel):
        calls = 0
        watch = FiniteWatch()

        def not_finite(self):
            return {"b": self.watch.not_finite()} if self.watch.not_finite() else {}

        def forward(self, batch):
            losses = super().forward(batch)
            self.calls += batch.task == "b"
            if comm.rank() == 1 and batch.task == "b" and self.calls == count + 1:
                if kind == "loss":
                    return self.watch.losses({"loss": losses["loss"] * float("inf")})
                losses["loss"] = Poison.apply(losses["loss"])
            return losses

    zero.init_distributed()
    model = Failing(TASKS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = ds_config.complete({"zero_optimization": {"stage": stage}}, micro_batch=4, clip_norm=None)
    engine = zero.ZeroEngine(model, optimizer, config)
    feeds = {
        t: Feed(loader=TinyStream(t, 10 * comm.rank() + k), stages=((0, count),)) for k, t in enumerate(TASKS)
    }
    runner = StepRunner(engine, feeds, METHODS["tbgn"].Config().build(TASKS, 0), total_steps=2)
    runner.run(0, [0.1])
    before = {n: v.clone() for n, v in engine.full_parameters()}
    try:
        runner.run(1, [0.1])
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    else:
        message = ""
    after = dict(engine.full_parameters())
    return {"message": message, "moved": [n for n, v in after.items() if not torch.equal(v, before[n])]}


CASES = [(1, 2), (2, 1), (3, 1), (3, 2)]  # ZeRO stage, micro-batches a task


@pytest.mark.parametrize(("stage", "count"), CASES)
def test_a_gradient_of_one_rank(stage, count):
    for found in run_ranks(take_steps, RANKS, stage, "gradient", count):
        assert found["message"].startswith("FloatingPointError: step 1: the gradient or loss of b is not")
        assert found["message"].count("ranks [") == 1
        assert found["moved"] == []


@pytest.mark.parametrize(("stage", "count"), CASES)
def test_a_loss_of_one_rank(stage, count):
    """One head sees a loss that is not finite; both ranks stop, and both name it."""
    for found in run_ranks(take_steps, RANKS, stage, "loss", count, timeout=120):
        assert found["message"].startswith("FloatingPointError: step 1: the gradient or loss of b is not")
        assert "by the heads of rank 1, b: loss)" in found["message"]
        assert found["moved"] == []


def skip_a_step(stage: int, poisoned: bool) -> dict:
    """Take three steps; the second has a gradient that is not a number, or is not taken at all."""
    from ufo_large.balancing import METHODS
    from ufo_large.distributed import comm, ds_config, zero
    from ufo_large.testing.tiny_steps import TinyStepModel, TinyStream
    from ufo_large.train.not_finite import NotFinite
    from ufo_large.train.steps import Feed, StepRunner

    class Failing(TinyStepModel):
        calls = 0

        def forward(self, batch):
            losses = super().forward(batch)
            self.calls += batch.task == "b"
            if poisoned and comm.rank() == 1 and batch.task == "b" and self.calls == 2:
                losses["loss"] = Poison.apply(losses["loss"])
            return losses

    zero.init_distributed()
    torch.manual_seed(0)
    model = Failing(TASKS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    config = ds_config.complete({"zero_optimization": {"stage": stage}}, micro_batch=4, clip_norm=None)
    engine = zero.ZeroEngine(model, optimizer, config)
    streams = {t: TinyStream(t, 10 * comm.rank() + k) for k, t in enumerate(TASKS)}
    feeds = {t: Feed(loader=stream, stages=((0, 1),)) for t, stream in streams.items()}
    runner = StepRunner(engine, feeds, METHODS["tbgn"].Config().build(TASKS, 0), total_steps=3)
    runner.not_finite = NotFinite(policy="skip", limit=1)
    logged = [runner.run(0, [0.1])]
    if poisoned:
        logged.append(runner.run(1, [0.1]))
    else:
        for stream in streams.values():
            next(stream)
    logged.append(runner.run(2, [0.1]))
    return {
        "skipped": [values["train/skipped_steps"] for values in logged],
        "weights": {n: v.numpy() for n, v in engine.full_parameters()},
    }


@pytest.mark.parametrize("stage", [1, 3])
def test_a_skipped_step_leaves_everything_as_it_was(stage):
    skipped = run_ranks(skip_a_step, RANKS, stage, True)
    without = run_ranks(skip_a_step, RANKS, stage, False)
    assert [found["skipped"] for found in skipped] == [[0, 1, 1]] * RANKS
    assert without[0]["weights"].keys() == skipped[0]["weights"].keys()
    for name, value in without[0]["weights"].items():
        assert np.isfinite(value).all() and np.array_equal(value, skipped[0]["weights"][name])
