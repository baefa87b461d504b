"""Constant weights, chosen by the user; all 1 is plain summing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.base import Balancer, Signals
from ufo_large.config import did_you_mean, per_task


class Fixed(Balancer):
    """Multiply each task's loss by a constant: the baseline to beat.

    Tuned constants are hard to beat (Kurin et al. 2022, arXiv:2201.04122; Xin et al. 2022,
    arXiv:2209.11379), so every comparison should print them beside the method it praises.
    """

    scales_private = True
    acts_alone = True

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Balancer.Config):
        """`by_task`: the weight of each task named; the others have 1."""

        by_task: dict[str, float] = per_task(default_factory=dict)

        def __post_init__(self):
            Balancer.Config.__post_init__(self)
            for task, weight in self.by_task.items():
                if not 0 <= weight < float("inf"):
                    raise ValueError(
                        f"fixed weight of task {task!r} is {weight}: must be finite and at least 0"
                    )

        def build(self, tasks: tuple[str, ...], seed: int) -> "Fixed":
            return Fixed(tasks, seed, self)

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        super().__init__(tasks, seed, config)
        for task in self.config.by_task:
            if task not in tasks:
                raise ValueError(f"fixed weight for an unknown task {task!r}.{did_you_mean(task, tasks)}")

    def weights(self, signals: Signals) -> Tensor:
        by_task = self.config.by_task
        return torch.tensor([float(by_task.get(t, 1.0)) for t in signals.tasks], dtype=torch.float64)
