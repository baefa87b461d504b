"""How long each task of a step takes, and nobody waits for the answer."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch


class TaskClock:
    """Times what runs inside `of`. On a GPU by events in its stream, else by the host's clock."""

    def __init__(self, device: torch.device):
        self._is_gpu = device.type == "cuda" and torch.cuda.is_available()
        self._marks: dict[str, tuple[Any, Any]] = {}

    def begin_step(self) -> None:
        self._marks = {}

    @contextlib.contextmanager
    def of(self, task: str) -> Iterator[None]:
        begun = self._now()
        yield
        self._marks[task] = (begun, self._now())

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each task of the step; call it when the step has waited for the GPU."""
        if self._is_gpu:
            return {task: begun.elapsed_time(ended) / 1e3 for task, (begun, ended) in self._marks.items()}
        return {task: ended - begun for task, (begun, ended) in self._marks.items()}

    def _now(self) -> Any:
        if not self._is_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
