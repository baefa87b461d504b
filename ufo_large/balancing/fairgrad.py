"""The alpha-fair update."""

from dataclasses import dataclass

from torch import Tensor

from ufo_large.balancing.bargaining import fair_weights
from ufo_large.balancing.gram import GramBalancer
from ufo_large.balancing.shares import check_share_names, check_shares, relative_shares
from ufo_large.config import per_task


class FairGrad(GramBalancer):
    """Share the improvement alpha-fairly (Ban & Ji 2024, arXiv:2402.15638, eq. 4): G w = w^(-1/alpha).

    alpha = 1 is Nash-MTL; larger values care more for the worst task, alpha -> 0 tends to plain summing.
    The norms are divided by their mean first, so that the scale is that of summing.

    With `shares` s it solves G w = (s / w)^(1/alpha). At alpha = 2 that is the problem of PIVRG (Qin et al.
    2025, "Revisiting Fairness in Multitask Learning: A Performance-Driven Approach for Variance Reduction",
    CVPR), which computes s from each task's metrics relative to single-task training; here s is the user's.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """`alpha`: the kind of fairness (paper: 1 to 2). `shares`: relative share by task (not named: 1)."""

        alpha: float = 2.0
        shares: dict[str, float] = per_task(default_factory=dict)

        def __post_init__(self):
            GramBalancer.Config.__post_init__(self)
            check_shares(self.shares)
            if not 0.5 <= self.alpha <= 10:
                raise ValueError(f"alpha={self.alpha}: must be in 0.5..10; for plain summing use fixed")

        def build(self, tasks: tuple[str, ...], seed: int) -> "FairGrad":
            return FairGrad(tasks, seed, self)

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        super().__init__(tasks, seed, config)
        check_share_names(self.config.shares, tasks)

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        shares_M = relative_shares(self.config.shares, tasks)
        return fair_weights(norms_M, cosines_MM, self.config.alpha, shares_M)
