"""Gradient clipping by task."""

from dataclasses import dataclass

from torch import Tensor

from ufo_large.balancing.base import Balancer, Signals
from ufo_large.balancing.gram import norms_and_cosines


class TBGC(Balancer):
    """Clip each task's gradient to a largest norm over the trunk, before the tasks are summed.

    Task-level balanced gradient clipping (TBGC, arXiv:2307.03465): w_k = min(1, max_norm / |g_k|) on the
    task's trunk, experts and head alike. Below every task's usual norm it normalises; then the total scale
    is number of tasks * max_norm, which the learning rate has to fit.
    """

    needs_gram = True
    scales_private = True
    acts_alone = True

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Balancer.Config):
        """`max_norm`: largest norm of a task's gradient over the shared parameters."""

        max_norm: float = 0.1

        def __post_init__(self):
            Balancer.Config.__post_init__(self)
            if not self.max_norm > 0:
                raise ValueError(f"max_norm={self.max_norm}: must be above 0")

        def build(self, tasks: tuple[str, ...], seed: int) -> "TBGC":
            return TBGC(tasks, seed, self)

    def weights(self, signals: Signals) -> Tensor:
        norms_M, _ = norms_and_cosines(signals.gram_MM)
        return self.config.max_norm / norms_M.clamp(min=self.config.max_norm)
