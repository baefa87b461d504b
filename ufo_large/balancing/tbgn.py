"""Gradient normalisation by task: the default."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.base import Balancer, Signals
from ufo_large.balancing.gram import norms_and_cosines
from ufo_large.balancing.shares import check_share_names, check_shares, relative_shares
from ufo_large.config import per_task


class TBGN(Balancer):
    """Give every task the share of the trunk's update that you choose, whatever the length of its gradient.

    Task-balanced gradient normalisation (Uni-Perceiver v2, Li et al. 2022, arXiv:2211.09808):
    each task's gradient is divided by its norm and multiplied by a weight. Here w_k = share_k * target /
    |g_k|. The target is the mean over the tasks of a moving average of their norms, so that the total
    scale stays that of plain summing; a constant would not fit the learning rate of another recipe.

    Experts and heads keep their own gradients unless `scale_private` is set (TBGC scales them too). Under
    AdamW a task's private parameters hardly notice a factor; under SGD the heads of tasks with short
    gradients learn sooner when scaled (both ways measured in benchmarks/results/conflict_cpu_202611.md).
    """

    needs_gram = True
    state_names = ("norm_averages", "counts")

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Balancer.Config):
        """`shares`: relative share by task (not named: 1). `momentum`: of the moving average of the norms.

        `floor`: a gradient shorter than this part of its own average is not raised to the full share, so
        that a batch without targets, whose gradient is noise, stays small; 0 normalises always.
        """

        shares: dict[str, float] = per_task(default_factory=dict)
        momentum: float = 0.99
        floor: float = 0.1

        def __post_init__(self):
            Balancer.Config.__post_init__(self)
            check_shares(self.shares)
            if not 0 <= self.momentum < 1:
                raise ValueError(f"momentum={self.momentum}: must be in 0 <= momentum < 1")
            if not 0 <= self.floor <= 1:
                raise ValueError(f"floor={self.floor}: must be in 0..1")

        def build(self, tasks: tuple[str, ...], seed: int) -> "TBGN":
            return TBGN(tasks, seed, self)

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        super().__init__(tasks, seed, config)
        check_share_names(self.config.shares, tasks)
        self.norm_averages: dict[str, float] = {}
        self.counts = dict.fromkeys(tasks, 0)

    def weights(self, signals: Signals) -> Tensor:
        norms_M, _ = norms_and_cosines(signals.gram_MM)
        self._average(signals.tasks, norms_M.tolist())
        known = self.norm_averages.values()
        target = sum(known) / len(known) if known else 1.0
        floors = [self.config.floor * self.norm_averages.get(t, target) for t in signals.tasks]
        divisors_M = torch.maximum(norms_M, torch.tensor(floors, dtype=torch.float64))
        ratios_M = torch.where(norms_M > 0, target / divisors_M, 1.0)
        return relative_shares(self.config.shares, signals.tasks) * ratios_M

    def _average(self, tasks: tuple[str, ...], norms: list[float]) -> None:
        for task, norm in zip(tasks, norms, strict=True):
            if norm > 0:
                self.counts[task] += 1
                last = self.norm_averages.get(task, norm)
                # A plain mean first: the gradients of the first steps, under new heads, are not typical.
                rate = max(1 - self.config.momentum, 1 / self.counts[task])
                self.norm_averages[task] = last + rate * (norm - last)
