"""`check_balancer`: what every balancing method has to keep to, on inputs that break careless ones."""

import io
from collections.abc import Iterator

import torch
from torch import Tensor

from ufo_large.balancing import Balancer, Signals
from ufo_large.testing.dependent_gradients import orthogonal_gradients

TASKS = ("cls", "det", "seg", "depth")


def check_balancer(config: Balancer.Config, *, equivariance: float = 1e-6, common_scale: bool = True) -> None:
    """Raise AssertionError, with the input that shows it, where the method breaks the contract.

    Finite on nasty inputs; the same weights however the tasks are ordered (relative error at most
    `equivariance`); weight 1 for a run of one task, and for every task where there is nothing to balance
    (`common_scale=False` for a method that has its own scale); an absent task left out; non-finite input
    refused by name; equal seeds give equal weights; a restored state continues bit for bit.
    """
    check_finite(config)
    check_permutation(config, equivariance)
    check_one_task(config)
    if common_scale:
        check_common_scale(config)
    check_absent_task(config)
    check_refuses_non_finite(config)
    check_resume(config)


def signals(tasks: tuple[str, ...], losses: list[float], gram_MM: Tensor, step: int = 0) -> Signals:
    """Return the signals of one step from plain numbers."""
    losses_M = torch.tensor(losses, dtype=torch.float64)
    return Signals(tasks=tasks, losses_M=losses_M, gram_MM=gram_MM, step=step, total_steps=100)


def random_gradients(num_tasks: int, size: int, seed: int) -> Tensor:
    """Return task gradients [M, size] in float64, of different lengths and with some conflict."""
    generator = torch.Generator().manual_seed(seed)
    gradients_MN = torch.randn(num_tasks, size, generator=generator, dtype=torch.float64)
    return gradients_MN * torch.logspace(-1, 1, num_tasks, dtype=torch.float64)[:, None]


def nasty_gradients() -> Iterator[tuple[str, Tensor]]:
    """Yield named sets of four task gradients: zero, rank one, opposed, parallel, tiny, huge and mixed."""
    plain_MN = random_gradients(4, 6, seed=0)
    one_zero_MN = plain_MN.clone()
    one_zero_MN[2] = 0
    direction_N = torch.tensor([1.0, 2.0, -1.0, 0.5, 0.0, 3.0], dtype=torch.float64)
    yield "plain", plain_MN
    yield "zero", torch.zeros(4, 6, dtype=torch.float64)
    yield "one zero", one_zero_MN
    yield "rank one", torch.tensor([1.0, 2.0, 0.1, 3.0], dtype=torch.float64)[:, None] * direction_N
    yield "opposed", torch.tensor([1.0, -1.0, 2.0, -0.5], dtype=torch.float64)[:, None] * direction_N
    yield "identical", direction_N.expand(4, 6).clone()
    yield "rank two", random_gradients(4, 2, seed=1)
    yield "scale 1e-10", 1e-10 * plain_MN
    yield "scale 1e15", 1e15 * plain_MN
    yield "mixed scales", torch.tensor([1e-5, 1.0, 1e3, 1e6], dtype=torch.float64)[:, None] * plain_MN


def nasty_signals(tasks: tuple[str, ...] = TASKS) -> Iterator[tuple[str, Signals]]:
    """Yield named signals: every set of nasty gradients with ordinary losses, then nasty losses."""
    losses = {"cls": 2.0, "det": 0.5, "seg": 1.0, "depth": 3.0}
    order = [TASKS.index(t) for t in tasks]
    step = 0
    for name, gradients_MN in nasty_gradients():
        gram_MM = (gradients_MN @ gradients_MN.T)[order][:, order]
        yield name, signals(tasks, [losses[t] * 0.9**step for t in tasks], gram_MM, step)
        step += 1
    for name, scales in (
        ("losses 1e-10", [1e-10] * 4),
        ("losses 1e15", [1e15] * 4),
        ("a zero loss", [1, 0, 1, 1]),
    ):
        by_task = dict(zip(TASKS, scales, strict=True))
        plain_MN = random_gradients(4, 6, seed=0)[order]
        yield name, signals(tasks, [losses[t] * by_task[t] for t in tasks], plain_MN @ plain_MN.T, step)
        step += 1


def check_finite(config: Balancer.Config) -> None:
    """On each nasty input alone and on their sequence the weights are finite float64 numbers, one a task."""
    in_sequence = config.build(TASKS, 0)
    for name, given in nasty_signals():
        for weights_M in (config.build(TASKS, 0)(given), in_sequence(given)):
            assert weights_M.shape == (4,) and weights_M.dtype == torch.float64, f"{name}: {weights_M}"
            assert torch.isfinite(weights_M).all(), f"{name}: {weights_M.tolist()}"


def check_permutation(config: Balancer.Config, tolerance: float) -> None:
    """Ordering the tasks differently gives each the same weight, step by step."""
    other = ("seg", "cls", "depth", "det")
    back = [other.index(t) for t in TASKS]
    here, there = config.build(TASKS, 0), config.build(other, 0)
    for (name, given), (_, permuted) in zip(nasty_signals(), nasty_signals(other), strict=True):
        expected_M, found_M = here(given), there(permuted)[back]
        largest = max(1.0, expected_M.abs().max().item())
        difference = (expected_M - found_M).abs().max().item() / largest
        assert difference <= tolerance, f"{name}: {expected_M.tolist()} became {found_M.tolist()}"


def check_one_task(config: Balancer.Config) -> None:
    """A run of one task trains as if there were no balancer. The gradient is small, below any clipping."""
    balancer = config.build(("cls",), 0)
    for step in range(3):
        gram_MM = torch.full((1, 1), 1e-6 * (step + 1), dtype=torch.float64)
        weights_M = balancer(signals(("cls",), [2.0 / (step + 1)], gram_MM, step))
        assert weights_M.tolist() == [1.0], f"step {step}: {weights_M.tolist()}"


def check_common_scale(config: Balancer.Config) -> None:
    """Two to eight orthogonal gradients of one length, however they lie, and equal losses: a plain sum."""
    generator = torch.Generator().manual_seed(0)
    for num_tasks in 12 * (2, 3, 4, 5, 6, 7, 8):
        tasks = tuple(f"task{i}" for i in range(num_tasks))
        gradients_MN = 3.0 * orthogonal_gradients(num_tasks, generator)
        given = signals(tasks, [2.0] * num_tasks, gradients_MN @ gradients_MN.T)
        weights_M = config.build(tasks, 0)(given)
        assert (weights_M - 1).abs().max() < 1e-6, f"{num_tasks} orthogonal tasks: {weights_M.tolist()}"


def check_absent_task(config: Balancer.Config) -> None:
    """Steps without a task give the others finite weights, and the task's return is no error."""
    balancer = config.build(TASKS, 0)
    gram_MM = random_gradients(4, 6, seed=3) @ random_gradients(4, 6, seed=3).T
    for step, present in enumerate([(0, 2), (0, 1, 2, 3), (1,), (1, 2, 3), (0, 1, 2, 3)]):
        index = list(present)
        given = signals(tuple(TASKS[i] for i in index), [1.0] * len(index), gram_MM[index][:, index], step)
        weights_M = balancer(given)
        assert weights_M.shape == (len(index),), f"tasks {present}: {weights_M}"
        assert torch.isfinite(weights_M).all(), f"tasks {present}: {weights_M.tolist()}"


def check_refuses_non_finite(config: Balancer.Config) -> None:
    """A loss or a gradient that is not finite raises ValueError with the task's name."""
    good_MM = torch.eye(4, dtype=torch.float64)
    bad_MM = good_MM.clone()
    bad_MM[2, :] = bad_MM[:, 2] = float("nan")
    for given, culprit in (
        (signals(TASKS, [1.0, float("inf"), 1.0, 1.0], good_MM), "det"),
        (signals(TASKS, [1.0, 1.0, 1.0, 1.0], bad_MM), "seg"),
    ):
        try:
            weights_M = config.build(TASKS, 0)(given)
        except ValueError as error:
            assert repr(culprit) in str(error), f"the message does not name {culprit!r}: {error}"
        else:
            raise AssertionError(f"accepted a non-finite signal of {culprit!r}: {weights_M.tolist()}")


def check_resume(config: Balancer.Config) -> None:
    """Two balancers of one seed agree bit for bit, also when one is saved to bytes and restored midway."""
    straight, resumed = config.build(TASKS, 7), config.build(TASKS, 7)
    for step, (name, given) in enumerate(nasty_signals()):
        if step == 5:
            saved = io.BytesIO()
            torch.save(resumed.state_dict(), saved)
            saved.seek(0)
            resumed = config.build(TASKS, 99)
            resumed.load_state_dict(torch.load(saved, weights_only=True))
        expected_M, found_M = straight(given), resumed(given)
        assert torch.equal(expected_M, found_M), f"{name}: {expected_M.tolist()} became {found_M.tolist()}"
