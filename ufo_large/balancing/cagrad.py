"""The best step for the worst task, close to the mean gradient."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from ufo_large.balancing.gram import GramBalancer, factor, shortest_in_hull


class CAGrad(GramBalancer):
    """Maximise the least improvement of any task within a ball around the mean gradient.

    Liu et al. 2021, arXiv:2110.14048, algorithm 1: d = g_0 + c |g_0| g_w / |g_w|, where w on the simplex
    minimises g_w . g_0 + c |g_0| |g_w|. c = 0 is plain summing. The result is divided by 1 + c (the
    authors' rescaling), so that one task keeps weight 1.

    |g_w| is the minimum over t of (|g_w|^2 / t + t) / 2; for a given t the best w is the hull's point nearest
    to -t / (c |g_0|) * g_0, and the function left in t is convex: a root in one dimension.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """`c`: radius of the ball in units of the mean gradient's norm, 0 <= c < 1 converges."""

        c: float = 0.4

        def __post_init__(self):
            GramBalancer.Config.__post_init__(self)
            if not 0 <= self.c < 1:
                raise ValueError(f"c={self.c}: must be in 0 <= c < 1")

        def build(self, tasks: tuple[str, ...], seed: int) -> "CAGrad":
            return CAGrad(tasks, seed, self)

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        columns_RM = factor(cosines_MM) * norms_M.numpy()
        radius = self.config.c * float(np.linalg.norm(columns_RM.mean(axis=1)))
        pull_M = np.zeros(len(tasks))
        if radius > 0:
            w_M, length = worst_mixture(columns_RM, radius)
            pull_M = radius * w_M / length
        return torch.from_numpy(1 + len(tasks) * pull_M) / (1 + self.config.c)


def worst_mixture(columns_RM: np.ndarray, radius: float) -> tuple[np.ndarray, float]:
    """Return w on the simplex that minimises g_w . g_0 + radius * |g_w|, and |g_w|."""
    mean_R = columns_RM.mean(axis=1, keepdims=True)

    def mixture(t: float) -> tuple[np.ndarray, float]:
        w_M = shortest_in_hull(columns_RM + t / radius * mean_R)
        return w_M, float(np.linalg.norm(columns_RM @ w_M))

    longest = float(np.linalg.norm(columns_RM, axis=0).max())
    # log t: the root may be far below the longest gradient.
    excess = lambda log_t: mixture(math.exp(log_t))[1] - math.exp(log_t)
    low, high = math.log(longest) - 30.0, math.log(longest) + 1.0
    root = low if excess(low) <= 0 else brentq(excess, low, high, xtol=1e-12)
    w_M, length = mixture(math.exp(root))
    return w_M, max(length, math.exp(low))
