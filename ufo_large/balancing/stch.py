"""A smooth version of training the worst task."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.base import Balancer, Signals, positive_losses, summing_to_count


class STCH(Balancer):
    """Train mostly the task that is worst off (smooth Tchebycheff, Lin et al. 2024, arXiv:2402.19078).

    The objective is mu * log sum_k exp(f_k / mu) with f_k = log(L_k / reference_k), as in the paper's
    multi-task experiments: the reference is the task's mean loss over its first steps, so
    f_k is how far the task still is from where it began. Hence w_k is proportional to softmax(f / mu)_k /
    L_k, here scaled to sum to M. During the warm-up only log L_k counts: w_k proportional to 1 / L_k.
    """

    scales_private = True
    state_names = ("sums", "counts")

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Balancer.Config):
        """`mu`: smaller is nearer to the worst task alone. `warmup_steps`: of a task, set its reference."""

        mu: float = 1.0
        warmup_steps: int = 100

        def __post_init__(self):
            Balancer.Config.__post_init__(self)
            if not self.mu > 0:
                raise ValueError(f"mu={self.mu}: must be above 0")
            if self.warmup_steps < 1:
                raise ValueError(f"warmup_steps={self.warmup_steps}: must be at least 1")

        def build(self, tasks: tuple[str, ...], seed: int) -> "STCH":
            return STCH(tasks, seed, self)

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        super().__init__(tasks, seed, config)
        self.sums = dict.fromkeys(tasks, 0.0)
        self.counts = dict.fromkeys(tasks, 0)

    def weights(self, signals: Signals) -> Tensor:
        losses_M = positive_losses(signals)
        warming = [self.counts[t] < self.config.warmup_steps for t in signals.tasks]
        for task, loss, early in zip(signals.tasks, losses_M.tolist(), warming, strict=True):
            if early:
                self.sums[task] += loss
                self.counts[task] += 1
        if any(warming):
            return summing_to_count(losses_M.min() / losses_M)
        references_M = torch.tensor(
            [self.sums[t] / self.counts[t] for t in signals.tasks], dtype=torch.float64
        )
        distances_M = (losses_M / references_M).log()
        return summing_to_count((distances_M / self.config.mu).softmax(dim=0) * (losses_M.min() / losses_M))
