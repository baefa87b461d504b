"""From the losses or the Gram matrix of the task gradients to one weight per task.

Legend: M tasks present in this step. The shared parameters receive sum_k weights[k] * gradient[k].

All methods share one scale, that of plain summing: where the gradients are orthogonal and equally long
and the losses are equal, every weight is 1. So the learning rate and the clipping threshold of a plain
run keep their meaning when the method changes.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

SMALLEST_LOSS = 1e-8
"""Losses are raised to this before a logarithm or a division."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signals:
    """What a step tells the balancer; equal on all ranks.

    `tasks`: names of the M tasks present, in the run's fixed order. `losses_M`: float64, each task's loss
    averaged over its micro-batches and ranks, before the step. `gram_MM`: float64 inner products of the
    task gradients of the shared parameters; None where `needs_gram` is false or `needs_measurement` said
    that the last weights are reused. `step`: 0-based optimizer step; `total_steps`: of the whole run.
    """

    tasks: tuple[str, ...]
    losses_M: Tensor
    gram_MM: Tensor | None
    step: int
    total_steps: int


class Balancer(ABC):
    """One method, one file. Runs on CPU in float64 on M numbers or M x M numbers; never sees a parameter.

    The trainer calls the balancer, not `weights`: the call checks the signals and reuses the last weights of
    the same tasks between measurements. What a method remembers is kept by task name, so a task that is
    absent from a step is left out, not counted as zero. Random methods draw from `self.generator`, which
    every rank seeds alike and which is part of the state. A run of a single task has nothing to balance: its
    weight is 1, without measuring.
    """

    needs_gram: ClassVar[bool] = False
    """Whether `weights` reads `gram_MM` at all."""

    scales_private: bool = False
    """Whether experts and heads of task k are multiplied by weights[k] too; `scale_private` overrides it."""

    acts_alone: ClassVar[bool] = False
    """Whether the method also means something for a run of one task (a fixed weight, a clipped norm)."""

    state_names: ClassVar[tuple[str, ...]] = ()
    """Attributes that the next weights depend on: plain Python values, a task's by its name."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Options of every method.

        `every_k_steps`: weights are used again until they are that old. `scale_private`: multiply experts and
        heads by the task's weight too; None leaves it to the method.
        """

        every_k_steps: int = 1
        scale_private: bool | None = None

        def __post_init__(self):
            if self.every_k_steps < 1:
                raise ValueError(f"every_k_steps={self.every_k_steps}: must be at least 1")

        def build(self, tasks: tuple[str, ...], seed: int) -> "Balancer":
            raise NotImplementedError

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        if len(set(tasks)) != len(tasks) or not tasks:
            raise ValueError(f"a balancer needs distinct task names, got {tasks}")
        self.tasks = tasks
        self.config = config if config is not None else type(self).Config()
        if self.config.scale_private is not None:
            self.scales_private = self.config.scale_private
        self.generator = torch.Generator().manual_seed(seed)
        self.measured: dict[tuple[str, ...], tuple[int, list[float]]] = {}  # tasks: when, their weights

    def needs_measurement(self, step: int, tasks: Iterable[str] | None = None) -> bool:
        """Return whether the call at `step` computes new weights; if not, `gram_MM` may be None.

        `tasks`: those present in the step (default: all of the run). Only the weights of exactly these tasks
        are used again: those of other company were found against other gradients.
        """
        if len(self.tasks) == 1 and not self.acts_alone:
            return False
        present = self.tasks if tasks is None else tuple(tasks)
        return present not in self.measured or step - self.measured[present][0] >= self.config.every_k_steps

    def __call__(self, signals: Signals) -> Tensor:
        """Return one weight a task, float64 [M]: new ones, or between measurements the last ones.

        Raises ValueError that names step and task where a loss, an inner product or a weight is not finite,
        and the step where the method's problem could not be solved.
        """
        check_signals(signals, self.tasks)
        if not self.needs_measurement(signals.step, signals.tasks):
            return self.last_weights(signals.tasks)
        if self.needs_gram and signals.gram_MM is None:
            raise ValueError(
                f"step {signals.step}: {type(self).__name__} needs the Gram matrix of the task "
                f"gradients; give gram_MM wherever needs_measurement(step, tasks) is true"
            )
        try:
            weights_M = self.weights(signals)
        except np.linalg.LinAlgError as error:
            raise ValueError(f"step {signals.step}: {type(self).__name__}: {error}") from error
        if not bool(weights_M.isfinite().all()):
            found = dict(zip(signals.tasks, weights_M.tolist(), strict=True))
            gram = None if signals.gram_MM is None else signals.gram_MM.tolist()
            raise ValueError(
                f"step {signals.step}: {type(self).__name__} found the weights {found} for the Gram "
                f"matrix {gram}: no parameter has moved; start from the last weights with another method"
            )
        self.measured[signals.tasks] = (signals.step, weights_M.tolist())
        return weights_M

    def last_weights(self, tasks: tuple[str, ...]) -> Tensor:
        """Return the weights of a step that measures nothing, float64 [M]; 1 for a task alone."""
        _, weights = self.measured.get(tasks, (0, [1.0] * len(tasks)))
        return torch.tensor(weights, dtype=torch.float64)

    @abstractmethod
    def weights(self, signals: Signals) -> Tensor:
        """Compute one weight a task, float64 [M], from signals already checked; advance the state."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next weights depend on besides the signals."""
        own = {name: copy.deepcopy(getattr(self, name)) for name in self.state_names}
        return {
            "method": type(self).__name__,
            "tasks": list(self.tasks),
            "generator": self.generator.get_state(),
            "measured": [(list(tasks), step, list(found)) for tasks, (step, found) in self.measured.items()],
            **own,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`. Raises ValueError for the state of another method or of other tasks."""
        if state["method"] != type(self).__name__:
            raise ValueError(
                f"the checkpoint's balancer is {state['method']}, this run's is {type(self).__name__}: "
                f"choose the same method, or start from the weights alone"
            )
        if set(state["tasks"]) != set(self.tasks):
            raise ValueError(
                f"the checkpoint balanced the tasks {', '.join(state['tasks'])}, this run has "
                f"{', '.join(self.tasks)}: keep the tasks, or start from the weights alone"
            )
        self.generator.set_state(state["generator"])
        # an older checkpoint kept weights by task: the next step measures
        measured = state.get("measured", [])
        self.measured = {tuple(tasks): (step, list(found)) for tasks, step, found in measured}
        for name in self.state_names:
            setattr(self, name, copy.deepcopy(state[name]))


def check_signals(signals: Signals, run_tasks: tuple[str, ...]) -> None:
    """Raise ValueError where tasks are unknown or out of order, shapes disagree or a number is not finite."""
    tasks = signals.tasks
    if not tasks or tuple(t for t in run_tasks if t in tasks) != tasks:
        raise ValueError(f"step {signals.step}: tasks {tasks} are not a subset, in order, of {run_tasks}")
    if signals.losses_M.shape != (len(tasks),):
        raise ValueError(f"step {signals.step}: {len(tasks)} tasks, losses {tuple(signals.losses_M.shape)}")
    for task, loss in zip(tasks, signals.losses_M.tolist(), strict=True):
        if not math.isfinite(loss):
            raise ValueError(f"step {signals.step}: the loss of task {task!r} is {loss}")
    if signals.gram_MM is None:
        return
    if signals.gram_MM.shape != (len(tasks), len(tasks)):
        raise ValueError(
            f"step {signals.step}: {len(tasks)} tasks but a Gram matrix {tuple(signals.gram_MM.shape)}"
        )
    bad_MM = ~torch.isfinite(signals.gram_MM)
    if bad_MM.any():
        # One broken gradient spoils its whole row, so the diagonal names the culprits where it can.
        culprits_M = bad_MM.diagonal() if bad_MM.diagonal().any() else bad_MM.any(dim=1)
        names = ", ".join(repr(t) for t, bad in zip(tasks, culprits_M.tolist(), strict=True) if bad)
        raise ValueError(f"step {signals.step}: the gradient of task {names} is not finite")


def positive_losses(signals: Signals) -> Tensor:
    """Return the losses, at least SMALLEST_LOSS; ValueError for a negative one (no logarithm, no ratio)."""
    for task, loss in zip(signals.tasks, signals.losses_M.tolist(), strict=True):
        if loss < 0:
            raise ValueError(
                f"step {signals.step}: the loss of task {task!r} is {loss}; this method needs losses of at "
                f"least 0, choose one that reads gradients only (tbgn)"
            )
    return signals.losses_M.double().clamp(min=SMALLEST_LOSS)


def summing_to_count(values_M: Tensor) -> Tensor:
    """Scale weights whose paper fixes only their ratio so that they sum to M, as in plain summing."""
    return values_M * (len(values_M) / values_M.sum())
