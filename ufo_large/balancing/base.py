"""From the losses or the Gram matrix of the task gradients to one weight per task.

Legend: M tasks present in this step. The shared parameters receive sum_k weights[k] * gradient[k].
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Signals:
    """What a step tells the balancer; equal on all ranks.

    `tasks`: names of the M tasks present, in the run's fixed order. `losses_M`: float64, each task's loss
    averaged over its micro-batches and ranks, before the step. `gram_MM`: float64 inner products of the
    task gradients of the shared parameters. `step`: 0-based optimizer step; `total_steps`: of the whole run.
    """

    tasks: tuple[str, ...]
    losses_M: Tensor
    gram_MM: Tensor
    step: int
    total_steps: int


class Balancer(ABC):
    """One method, one file. Runs on CPU in float64 on M numbers or M x M numbers; never sees a parameter.

    State is kept by task name, so a task that is absent from a step is left out, not counted as zero. Random
    methods draw from `self.generator`, which every rank seeds alike and which is part of the state.
    """

    scales_private: ClassVar[bool] = False
    """Whether experts and heads of task k are multiplied by weights[k] too (methods that weight losses)."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Options of the method; `every_k_steps` reuses the last weights between measurements."""

        every_k_steps: int = 1

        def __post_init__(self):
            if self.every_k_steps < 1:
                raise ValueError(f"every_k_steps={self.every_k_steps}: must be at least 1")

        def build(self, tasks: tuple[str, ...], seed: int) -> "Balancer":
            raise NotImplementedError

    def __init__(self, tasks: tuple[str, ...], seed: int = 0):
        if len(set(tasks)) != len(tasks) or not tasks:
            raise ValueError(f"a balancer needs distinct task names, got {tasks}")
        self.tasks = tasks
        self.generator = torch.Generator().manual_seed(seed)

    @abstractmethod
    def weights(self, signals: Signals) -> Tensor:
        """Return one weight a task, float64 [M]. Raises ValueError where a signal is not finite."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that `weights` depends on besides its argument."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
