"""The shortest convex combination of the task gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.gram import GramBalancer, factor, shortest_in_hull


class MGDA(GramBalancer):
    """Step along the shortest vector in the convex hull of the gradients.

    Désidéri 2012; Sener & Koltun 2018, arXiv:1810.04650, eq. 3: no task gets worse, to first order. The
    shortest vector leans to the shortest gradient, so a task that is done or has a small loss rules the
    update. Solved exactly rather than by Frank-Wolfe; the weights are scaled to sum to M.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """No options of its own."""

        def build(self, tasks: tuple[str, ...], seed: int) -> "MGDA":
            return MGDA(tasks, seed, self)

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        weights_M = shortest_in_hull(factor(cosines_MM) * norms_M.numpy())
        return len(tasks) * torch.from_numpy(weights_M)
