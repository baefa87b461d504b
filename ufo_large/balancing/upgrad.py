"""Project every gradient so that it harms no task, then sum."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ufo_large.balancing.gains import shortest_with_gains
from ufo_large.balancing.gram import GramBalancer, definite


class UPGrad(GramBalancer):
    """Project each gradient onto the cone of updates that harm no task, and sum the projections.

    Quinton & Rey 2024, arXiv:2406.16232, proposition 1: the projection of g_i is
    sum_k v_k g_k with v minimising v G v subject to v >= e_i. With v = e_i + y, y is the shortest sum of
    gradients that takes g_i's harm away, solved exactly here; TorchJD's own projector needs a GPL solver.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """No options of its own."""

        def build(self, tasks: tuple[str, ...], seed: int) -> "UPGrad":
            return UPGrad(tasks, seed, self)

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        solvable_MM = definite(cosines_MM)
        norms = norms_M.numpy()
        weights_M = np.ones(len(tasks))
        for harm_M, norm in zip(-solvable_MM, norms, strict=True):
            weights_M += norm * shortest_with_gains(solvable_MM, harm_M) / norms
        return torch.from_numpy(weights_M)
