"""The alpha-fair update."""

from dataclasses import dataclass

from torch import Tensor

from ufo_large.balancing.bargaining import fair_weights
from ufo_large.balancing.gram import GramBalancer


class FairGrad(GramBalancer):
    """Share the improvement alpha-fairly (Ban & Ji 2024, arXiv:2402.15638, eq. 4): G w = w^(-1/alpha).

    alpha = 1 is Nash-MTL; larger values care more for the worst task, alpha -> 0 tends to plain summing.
    The norms are divided by their mean first, so that the scale is that of summing.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """`alpha`: the kind of fairness (paper: 1 to 2)."""

        alpha: float = 2.0

        def __post_init__(self):
            GramBalancer.Config.__post_init__(self)
            if not 0.5 <= self.alpha <= 10:
                raise ValueError(f"alpha={self.alpha}: must be in 0.5..10; for plain summing use fixed")

        def build(self, tasks: tuple[str, ...], seed: int) -> "FairGrad":
            return FairGrad(tasks, seed, self)

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        return fair_weights(norms_M, cosines_MM, self.config.alpha)
