"""Measure for a while, then freeze good static weights."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.base import Balancer, Signals
from ufo_large.balancing.gram import norms_and_cosines
from ufo_large.balancing.shares import check_share_names, check_shares, relative_shares
from ufo_large.config import per_task


class Autoscale(Balancer):
    """Find the static weights that give every task its share of the update, in one run.

    Well-tuned static weights match most balancing methods (Xin et al. 2022, arXiv:2209.11379), but tuning
    them takes many runs. This measures the Gram matrix for some hundred steps, takes the geometric mean of
    each task's gradient norm, and freezes w_k = share_k * mean norm / norm_k; from then on a step costs what
    plain summing costs. Until then it uses the weights that it would freeze now.
    """

    needs_gram = True
    scales_private = True
    state_names = ("log_sums", "counts")

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Balancer.Config):
        """`skip_steps`: of a task, while gradients still settle, are forgotten; `measure_steps` then count.

        `shares`: relative share of the update by task (not named: 1).
        """

        skip_steps: int = 100
        measure_steps: int = 300
        shares: dict[str, float] = per_task(default_factory=dict)

        def __post_init__(self):
            Balancer.Config.__post_init__(self)
            check_shares(self.shares)
            if self.skip_steps < 0 or self.measure_steps < 1:
                raise ValueError(
                    f"skip_steps={self.skip_steps}, measure_steps={self.measure_steps}: "
                    f"must be at least 0 and at least 1"
                )

        def build(self, tasks: tuple[str, ...], seed: int) -> "Autoscale":
            return Autoscale(tasks, seed, self)

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        super().__init__(tasks, seed, config)
        check_share_names(self.config.shares, tasks)
        self.log_sums = dict.fromkeys(tasks, 0.0)
        self.counts = dict.fromkeys(tasks, 0)

    def needs_measurement(self, step: int, tasks: Iterable[str] | None = None) -> bool:
        """Return False once every one of `tasks` has been measured enough."""
        tasks = self.tasks if tasks is None else tuple(tasks)
        frozen = all(self.counts[t] >= self.config.skip_steps + self.config.measure_steps for t in tasks)
        return not frozen and super().needs_measurement(step, tasks)

    def weights(self, signals: Signals) -> Tensor:
        norms_M, _ = norms_and_cosines(signals.gram_MM)
        for task, norm in zip(signals.tasks, norms_M.tolist(), strict=True):
            if norm > 0:
                self._remember(task, math.log(norm))
        return self.last_weights(signals.tasks)

    def last_weights(self, tasks: tuple[str, ...]) -> Tensor:
        """Return the weights of what has been measured so far, whatever tasks were together then."""
        typical = {t: self._typical(t) for t in self.tasks if self.counts[t] > 0}
        target = sum(typical.values()) / len(typical) if typical else 1.0
        ratios_M = torch.tensor([target / typical.get(t, target) for t in tasks], dtype=torch.float64)
        return relative_shares(self.config.shares, tasks) * ratios_M

    def _remember(self, task: str, log_norm: float) -> None:
        if self.counts[task] >= self.config.skip_steps + self.config.measure_steps:
            return
        if self.counts[task] == self.config.skip_steps:
            self.log_sums[task] = 0.0
        self.log_sums[task] += log_norm
        self.counts[task] += 1

    def _typical(self, task: str) -> float:
        count, skip = self.counts[task], self.config.skip_steps
        return math.exp(self.log_sums[task] / (count - skip if count > skip else count))
