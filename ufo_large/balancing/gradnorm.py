"""Weights learned so that the gradient norms follow the training rates."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.base import Signals, positive_losses
from ufo_large.balancing.gram import norms_and_cosines
from ufo_large.balancing.learned import LearnedBalancer


class GradNorm(LearnedBalancer):
    """Learn weights whose gradient norms match a common norm, larger for tasks that lag behind.

    Chen et al. 2018, arXiv:1711.02257, eq. 2: minimise sum_k |w_k |g_k| - mean(w |g|) * r_k^alpha|, where
    r_k is the task's loss relative to its first, over the mean of that ratio; the target is a constant.
    The weights are M * softmax(v), which keeps them positive and their sum at M (the paper renormalises),
    and the norms are those of the whole trunk, not of its last layer.
    """

    needs_gram = True
    scales_private = True
    state_names = ("first_losses",)

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(LearnedBalancer.Config):
        """`alpha`: how strongly lagging tasks are favoured (0: equal norms). `learning_rate`: of Adam."""

        learning_rate: float = 0.025
        alpha: float = 1.5

        def __post_init__(self):
            LearnedBalancer.Config.__post_init__(self)
            if not self.alpha >= 0:
                raise ValueError(f"alpha={self.alpha}: must be 0 or more")

        def build(self, tasks: tuple[str, ...], seed: int) -> "GradNorm":
            return GradNorm(tasks, seed, self)

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        super().__init__(tasks, seed, config)
        self.first_losses: dict[str, float] = {}

    def weights(self, signals: Signals) -> Tensor:
        losses_M = positive_losses(signals)
        for task, loss in zip(signals.tasks, losses_M.tolist(), strict=True):
            self.first_losses.setdefault(task, loss)
        ratios_M = losses_M / torch.tensor([self.first_losses[t] for t in signals.tasks], dtype=torch.float64)
        rates_M = ratios_M / ratios_M.mean()
        norms_M, _ = norms_and_cosines(signals.gram_MM)
        parts_M = self.values(signals.tasks).softmax(dim=0)
        weights_M = len(parts_M) * parts_M
        scaled_M = weights_M * norms_M
        slopes_M = torch.sign(scaled_M - scaled_M.mean() * rates_M**self.config.alpha) * norms_M
        # d w_j / d v_k = w_j * (1[j = k] - w_k / M)
        self.learn(signals.tasks, weights_M * (slopes_M - parts_M @ slopes_M))
        return weights_M
