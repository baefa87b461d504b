"""A step measures inner products of task gradients only where the balancer or the log reads them."""

import pytest
import torch

from ufo_large.balancing import METHODS, Balancer
from ufo_large.config import apply_overrides
from ufo_large.distributed.engine import PlainEngine
from ufo_large.recipes import load_recipe
from ufo_large.testing.tiny_steps import TinyStepModel, TinyStream
from ufo_large.train.steps import Feed, StepRunner

TASKS = ("a", "b", "c")


def run_steps(config: Balancer.Config, steps: int, log_every: int = 1) -> tuple[list[dict], TinyStepModel]:
    model = TinyStepModel(TASKS)
    engine = PlainEngine(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.device("cpu"))
    feeds = {task: Feed(loader=TinyStream(task, k)) for k, task in enumerate(TASKS)}
    runner = StepRunner(engine, feeds, config.build(TASKS, 0), steps, log_every)
    return [runner.run(step, [0.1]) for step in range(steps)], model


def steps_with_cosines(log: list[dict]) -> list[int]:
    return [step for step, values in enumerate(log) if "balance/conflict_rate" in values]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_by_name_takes_steps(name):
    config = apply_overrides(load_recipe("demo"), [f"balancer={name}"]).balancer
    log, model = run_steps(config, 3)
    weights = [[values[f"balance/{t}/weight"] for t in TASKS] for values in log]
    assert torch.tensor(weights).isfinite().all()
    started = TinyStepModel(TASKS)
    for (key, value), first in zip(model.named_parameters(), started.parameters(), strict=True):
        assert value.isfinite().all() and not torch.equal(value, first), key


def test_between_measurements_only_norms_are_measured():
    log, _ = run_steps(METHODS["mgda"].Config(every_k_steps=3), 7)
    assert steps_with_cosines(log) == [0, 3, 6]
    for values in log:
        assert all(values[f"balance/{t}/grad_norm"] > 0 for t in TASKS)
        assert ("balance/a/share" in values) == ("balance/cosine/a-b" in values)
    weights = [[values[f"balance/{t}/weight"] for t in TASKS] for values in log]
    assert weights[0] == weights[1] == weights[2] != weights[3]


def test_frozen_weights_are_no_longer_measured():
    log, _ = run_steps(METHODS["autoscale"].Config(skip_steps=1, measure_steps=2), 5)
    assert steps_with_cosines(log) == [0, 1, 2]


@pytest.mark.parametrize(("log_every", "seen"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3]), (10, [])])
def test_where_the_balancer_reads_none_the_log_decides(log_every, seen):
    log, _ = run_steps(METHODS["fixed"].Config(), 5, log_every)
    assert steps_with_cosines(log) == seen


def test_a_balancer_that_reads_them_gets_them_whatever_the_log_shows():
    log, _ = run_steps(METHODS["pcgrad"].Config(), 3, log_every=10)
    assert steps_with_cosines(log) == [0, 1, 2]


def test_measuring_changes_no_update_and_norms_agree():
    always, first = run_steps(METHODS["fixed"].Config(by_task={"b": 0.5}), 4)
    never, second = run_steps(METHODS["fixed"].Config(by_task={"b": 0.5}), 4, log_every=10)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    for with_pairs, norms_only in zip(always, never, strict=True):
        for task in TASKS:
            key = f"balance/{task}/grad_norm"
            assert norms_only[key] == pytest.approx(with_pairs[key], rel=1e-6)  # measured: 1.3e-7


def test_a_gradient_that_is_not_finite_stops_a_step_without_measurement():
    model = TinyStepModel(TASKS)
    engine = PlainEngine(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.device("cpu"))
    feeds = {task: Feed(loader=TinyStream(task, k)) for k, task in enumerate(TASKS)}
    runner = StepRunner(engine, feeds, METHODS["mgda"].Config(every_k_steps=5).build(TASKS, 0), 5)
    runner.run(0, [0.1])
    before = [p.clone() for p in model.parameters()]
    model.experts["b"].weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(FloatingPointError, match=r"step 1: the gradient or loss of b is not finite"):
        runner.run(1, [0.1])
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
