"""Which share of a step a GPU spends in collectives and in nothing else: one step in many is traced.

Under NCCL collectives are kernels in streams of their own, and the stream that computes waits for them on the
GPU: neither the program nor a look from outside sees that. A trace of the GPU's activity does. While nothing
is traced, it costs nothing.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

FIRST = 20
"""The step of a process that is traced first: compiling and choosing of kernels are over."""
GPU_WORK = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
"""Activity in a trace that keeps the GPU busy; others mark ranges of it."""


class Work(NamedTuple):
    """A kernel or a copy: when it ran, in nanoseconds, and whether it is a collective."""

    start: int
    end: int
    is_collective: bool


class NetworkTrace:
    """Traces step FIRST of this process and each `every`-th behind it; 0 traces none."""

    def __init__(self, every: int):
        self._every = every
        self.share: float | None = None
        """Of the last traced step: the part of it in which the network alone kept the GPU waiting."""

    def is_due(self, step: int) -> bool:
        return self._every > 0 and step >= FIRST and (step - FIRST) % self._every == 0

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """Trace what runs on the GPU inside; the share is known when it is over, unless nothing was seen.

        A trace that cannot be taken, as under another profiler, ends no run: it is said once.
        """
        try:
            profiler = torch.autograd.profiler.profile(use_cpu=False, use_device="cuda", use_kineto=True)
            profiler.__enter__()
        except (AssertionError, RuntimeError) as error:
            self._give_up(error)
            yield
            return
        try:
            yield
        finally:
            profiler.__exit__(None, None, None)
        try:
            self._read(work_of(profiler.kineto_results.events()))
        except Exception as error:  # of a profiler of another version
            self._give_up(error)

    def _read(self, work: list[Work]) -> None:
        if not work:
            return self._give_up("nothing was traced")
        begun, ended = min(w.start for w in work), max(w.end for w in work)
        self.share = exposed(work) / max(ended - begun, 1)

    def _give_up(self, reason: object) -> None:
        self._every, self.share = 0, None
        warnings.warn(f"the log has no share of waiting for the network: {reason}", stacklevel=2)


def work_of(events: Iterable) -> list[Work]:
    """Return the GPU's kernels and copies among a profiler's events. NCCL's kernels begin with its name."""
    return [
        Work(event.start_ns(), event.end_ns(), event.name().startswith("nccl"))
        for event in events
        if event.activity_type() in GPU_WORK
    ]


def exposed(work: Iterable[Work]) -> int:
    """Return the nanoseconds in which a collective ran and nothing else did: exposed communication."""
    work = list(work)
    return _covered(work) - _covered(w for w in work if not w.is_collective)


def _covered(work: Iterable[Work]) -> int:
    """Return the nanoseconds in which at least one of these ran."""
    total, reached = 0, 0
    for start, end, _ in sorted(work):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
