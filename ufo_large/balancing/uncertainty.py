"""Weights from learned task uncertainties."""

from dataclasses import dataclass

from torch import Tensor

from ufo_large.balancing.base import Signals
from ufo_large.balancing.learned import LearnedBalancer


class Uncertainty(LearnedBalancer):
    """Divide each loss by a variance that is learned with it (Kendall et al. 2018, arXiv:1705.07115, eq. 7).

    With s_k the log-variance, the objective is sum_k exp(-s_k) * L_k + s_k (twice the paper's, so that the
    weights start at 1). w_k = exp(-s_k); its own gradient, 1 - exp(-s_k) * L_k, is known without autograd.
    It settles at w_k = 1 / L_k: tasks are weighed by the size of their losses, not of their gradients.
    """

    scales_private = True

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(LearnedBalancer.Config):
        """`learning_rate`: of Adam on the log-variances."""

        def build(self, tasks: tuple[str, ...], seed: int) -> "Uncertainty":
            return Uncertainty(tasks, seed, self)

    def weights(self, signals: Signals) -> Tensor:
        weights_M = (-self.values(signals.tasks)).exp()
        self.learn(signals.tasks, 1 - weights_M * signals.losses_M.double())
        return weights_M
