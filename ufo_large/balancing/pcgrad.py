"""Project conflicting parts of the gradients away."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.gram import GramBalancer
from ufo_large.balancing.projection_order import projection_orders


class PCGrad(GramBalancer):
    """Project each task's gradient off the tasks it conflicts with.

    Yu et al. 2020, arXiv:2001.06782, algorithm 1. Written on the Gram matrix: a projected gradient is a sum
    of task gradients, so its inner products are sums of Gram entries. The order of the projections is
    random, from the balancer's own generator.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """No options of its own."""

        def build(self, tasks: tuple[str, ...], seed: int) -> "PCGrad":
            return PCGrad(tasks, seed, self)

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        parts_MM = torch.diag(norms_M)  # row i: the projected gradient i in terms of the unit gradients
        for i, order in enumerate(projection_orders(self.tasks, tasks, self.generator)):
            for j in order:
                along = cosines_MM[j] @ parts_MM[i]
                if along < 0:
                    parts_MM[i, j] -= along
        return parts_MM.sum(dim=0) / norms_M
