"""Balancing numbers that are learned: one a task, by Adam, outside the network."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ufo_large.balancing.base import Balancer


class LearnedBalancer(Balancer):
    """A balancer with one learned number a task, zero at first.

    They are no parameters of the network: M numbers with an analytic gradient need neither ZeRO nor the
    learning rate of the trunk. Each task's Adam moments move only in steps where the task is present.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Balancer.Config):
        """`learning_rate`: of Adam on the learned numbers."""

        learning_rate: float = 0.01

        def __post_init__(self):
            Balancer.Config.__post_init__(self)
            if not self.learning_rate > 0:
                raise ValueError(f"learning_rate={self.learning_rate}: must be above 0")

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        super().__init__(tasks, seed, config)
        self.learned = {task: torch.zeros((), dtype=torch.float64) for task in tasks}
        self.optimizer = torch.optim.Adam(
            self.learned.values(), lr=self.config.learning_rate, weight_decay=self.weight_decay, foreach=False
        )

    @property
    def weight_decay(self) -> float:
        return 0.0

    def values(self, tasks: tuple[str, ...]) -> Tensor:
        """Return the learned numbers of `tasks`, [M]."""
        return torch.stack([self.learned[t] for t in tasks])

    def learn(self, tasks: tuple[str, ...], gradients_M: Tensor) -> None:
        """Take one Adam step on the numbers of `tasks`; the others stay as they are."""
        for task, gradient in zip(tasks, gradients_M.double(), strict=True):
            self.learned[task].grad = gradient.clone()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        learned = {task: value.item() for task, value in self.learned.items()}
        optimizer = copy.deepcopy(self.optimizer.state_dict()["state"])
        moments = {task: optimizer[i] for i, task in enumerate(self.tasks) if i in optimizer}
        return {**super().state_dict(), "learned": learned, "moments": moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for task, value in state["learned"].items():
            self.learned[task].fill_(value)
        saved = self.optimizer.state_dict()
        moments = copy.deepcopy(state["moments"])
        saved["state"] = {i: moments[task] for i, task in enumerate(self.tasks) if task in moments}
        self.optimizer.load_state_dict(saved)
