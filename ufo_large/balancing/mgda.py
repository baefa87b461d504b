"""The shortest convex combination of the task gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.base import summing_to_count
from ufo_large.balancing.gains import shortest_with_gains
from ufo_large.balancing.gram import GramBalancer, definite


class MGDA(GramBalancer):
    """Step along the shortest vector in the convex hull of the gradients.

    Désidéri 2012; Sener & Koltun 2018, arXiv:1810.04650, eq. 3: no task gets worse, to first order. The
    shortest vector leans to the shortest gradient, so a task that is done or has a small loss rules the
    update. Solved exactly rather than by Frank-Wolfe: the shortest vector of the hull gives every task a gain
    of at least its own squared length, so it points to the shortest vector with equal wanted gains. The
    weights are scaled to sum to M.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """No options of its own."""

        def build(self, tasks: tuple[str, ...], seed: int) -> "MGDA":
            return MGDA(tasks, seed, self)

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        shortest = norms_M.min()
        units_M = torch.from_numpy(shortest_with_gains(definite(cosines_MM), (shortest / norms_M).numpy()))
        return summing_to_count(units_M * (shortest / norms_M))
