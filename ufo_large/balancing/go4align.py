"""Weights by groups of tasks that progress alike."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.base import Balancer, Signals, positive_losses


class GO4Align(Balancer):
    """Give tasks in similar states the same weight (GO4Align, Shen et al. 2024, arXiv:2404.06486, section 3).

    Each task's indicator gamma_k is multiplied by exp(-step_size * L_k) at every step and normalised; times
    sum(L) / L_k it becomes comparable between tasks. The tasks are grouped by k-means on these numbers and
    get their group's mean as weight. On M numbers k-means is solved exactly.
    """

    scales_private = True
    state_names = ("log_indicators",)

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Balancer.Config):
        """`num_groups`: at most this many groups. `step_size`: how fast the indicators move (paper: 1e-4)."""

        num_groups: int = 2
        step_size: float = 1e-4

        def __post_init__(self):
            Balancer.Config.__post_init__(self)
            if self.num_groups < 1:
                raise ValueError(f"num_groups={self.num_groups}: must be at least 1")
            if not self.step_size > 0:
                raise ValueError(f"step_size={self.step_size}: must be above 0")

        def build(self, tasks: tuple[str, ...], seed: int) -> "GO4Align":
            return GO4Align(tasks, seed, self)

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        super().__init__(tasks, seed, config)
        self.log_indicators = dict.fromkeys(tasks, 0.0)

    def weights(self, signals: Signals) -> Tensor:
        losses_M = positive_losses(signals)
        logits_M = torch.tensor([self.log_indicators[t] for t in signals.tasks], dtype=torch.float64)
        logits_M = logits_M - self.config.step_size * losses_M
        # Only differences count; holding the mean of those present leaves the absent where they were.
        moved_M = logits_M + self.config.step_size * losses_M.mean()
        self.log_indicators.update(zip(signals.tasks, moved_M.tolist(), strict=True))
        return group_means(losses_M.sum() / losses_M * logits_M.softmax(dim=0), self.config.num_groups)


def group_means(values_M: Tensor, num_groups: int) -> Tensor:
    """Return for each value the mean of its group under the best k-means grouping (least squared distance).

    Exact: groups of numbers are intervals of their sorted order, so dynamic programming over the cuts
    finds them.
    """
    order = torch.argsort(values_M, stable=True)
    ordered = values_M[order].tolist()
    best = [(0.0, ())] + [(float("inf"), ())] * len(ordered)  # (cost, starts of groups) of each prefix
    for _ in range(min(num_groups, len(ordered))):
        longer = [(cost, starts) for cost, starts in best]
        for end in range(1, len(ordered) + 1):
            for start in range(end):
                cost = best[start][0] + _spread(ordered[start:end])
                if cost < longer[end][0]:
                    longer[end] = (cost, (*best[start][1], start))
        best = longer
    starts = [*best[-1][1], len(ordered)]
    means_M = torch.empty_like(values_M)
    for start, end in zip(starts, starts[1:], strict=False):
        means_M[order[start:end]] = sum(ordered[start:end]) / (end - start)
    return means_M


def _spread(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values)
