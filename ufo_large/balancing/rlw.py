"""Random weights: a litmus test."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.base import Balancer, Signals, summing_to_count


class RLW(Balancer):
    """Draw new weights at every step (random loss weighting, Lin et al. 2021, arXiv:2111.10603, algorithm 2).

    A softmax of normal numbers, scaled to sum to M. A method that does not beat it has shown nothing.
    """

    scales_private = True

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Balancer.Config):
        """No options of its own."""

        def build(self, tasks: tuple[str, ...], seed: int) -> "RLW":
            return RLW(tasks, seed, self)

    def weights(self, signals: Signals) -> Tensor:
        # Drawn for all tasks by name, so that an absent task does not change what the others draw.
        names = sorted(self.tasks)
        drawn = torch.randn(len(names), generator=self.generator, dtype=torch.float64).tolist()
        by_name = dict(zip(names, drawn, strict=True))
        logits_M = torch.tensor([by_name[t] for t in signals.tasks], dtype=torch.float64)
        return summing_to_count(logits_M.softmax(dim=0))
