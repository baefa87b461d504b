"""Weights from how fast each loss falls."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.base import Balancer, Signals, positive_losses


class DWA(Balancer):
    """Favour the tasks whose loss fell least.

    Dynamic weight average, Liu et al. 2019, arXiv:1803.10704, eq. 7:
    w_k = M * softmax(r / temperature), r_k = the task's mean loss in its last window over that in the window
    before. A window is a number of the task's own steps and stands for the paper's epoch; until a task has
    two, its r_k is 1.
    """

    scales_private = True
    state_names = ("sums", "counts", "means")

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Balancer.Config):
        """`window`: measured steps that are averaged. `temperature`: larger is nearer to equal weights."""

        window: int = 100
        temperature: float = 2.0

        def __post_init__(self):
            Balancer.Config.__post_init__(self)
            if self.window < 1:
                raise ValueError(f"window={self.window}: must be at least 1")
            if not self.temperature > 0:
                raise ValueError(f"temperature={self.temperature}: must be above 0")

        def build(self, tasks: tuple[str, ...], seed: int) -> "DWA":
            return DWA(tasks, seed, self)

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        super().__init__(tasks, seed, config)
        self.sums = dict.fromkeys(tasks, 0.0)
        self.counts = dict.fromkeys(tasks, 0)
        self.means: dict[str, list[float]] = {task: [] for task in tasks}

    def weights(self, signals: Signals) -> Tensor:
        rates_M = torch.tensor([self._rate(t) for t in signals.tasks], dtype=torch.float64)
        for task, loss in zip(signals.tasks, positive_losses(signals).tolist(), strict=True):
            self._remember(task, loss)
        return len(rates_M) * (rates_M / self.config.temperature).softmax(dim=0)

    def _rate(self, task: str) -> float:
        means = self.means[task]
        return means[1] / means[0] if len(means) == 2 else 1.0

    def _remember(self, task: str, loss: float) -> None:
        self.sums[task] += loss
        self.counts[task] += 1
        if self.counts[task] == self.config.window:
            self.means[task] = [*self.means[task], self.sums[task] / self.counts[task]][-2:]
            self.sums[task], self.counts[task] = 0.0, 0
