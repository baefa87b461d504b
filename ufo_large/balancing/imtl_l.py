"""Loss scales learned so that all scaled losses have one size."""

from dataclasses import dataclass

from torch import Tensor

from ufo_large.balancing.base import Signals
from ufo_large.balancing.learned import LearnedBalancer


class IMTLL(LearnedBalancer):
    """Learn a scale per loss (IMTL-L, Liu et al. 2021, "Towards Impartial Multi-task Learning", ICLR).

    The objective is sum_k exp(s_k) * L_k - s_k; w_k = exp(s_k) settles at 1 / L_k. Although it is derived
    without a likelihood, with s_k = -log-variance it is `uncertainty`; both names are kept because papers
    report both.
    """

    scales_private = True

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(LearnedBalancer.Config):
        """`learning_rate`: of Adam on the log-scales."""

        def build(self, tasks: tuple[str, ...], seed: int) -> "IMTLL":
            return IMTLL(tasks, seed, self)

    def weights(self, signals: Signals) -> Tensor:
        weights_M = self.values(signals.tasks).exp()
        self.learn(signals.tasks, weights_M * signals.losses_M.double() - 1)
        return weights_M
