"""The best step for the worst task, close to the mean gradient."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from ufo_large.balancing.gains import shortest_with_gains
from ufo_large.balancing.gram import GramBalancer, definite


class CAGrad(GramBalancer):
    """Maximise the least improvement of any task within a ball around the mean gradient.

    Liu et al. 2021, arXiv:2110.14048: d maximises min_k g_k . d within |d - g_0| <= c |g_0|. c = 0 is
    plain summing. The result is divided by 1 + c (the authors' rescaling), so that one task keeps weight 1.

    The paper solves the dual. Here the d nearest to g_0 is found exactly for a given least gain; its distance
    grows with the gain, and the gain that spends the whole radius is a root in one dimension.
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
        change_M = fairest_change(definite(cosines_MM), norms_M.numpy(), self.config.c)
        return torch.from_numpy(1 + len(tasks) * change_M) / (1 + self.config.c)


def fairest_change(cosines_MM: np.ndarray, norms_M: np.ndarray, c: float) -> np.ndarray:
    """Return the weights, [M], of the change to g_0 of length c |g_0| that raises the least gain the most."""
    mean_M = norms_M / len(norms_M)  # g_0 in terms of the unit gradients
    cosines_to_mean_M = cosines_MM @ mean_M
    radius = c * math.sqrt(mean_M @ cosines_to_mean_M)
    if radius == 0:  # what rounding leaves must not look for a change within it
        return np.zeros(len(norms_M))

    def change_for(gain: float) -> tuple[np.ndarray, float]:
        units_M = shortest_with_gains(cosines_MM, gain / norms_M - cosines_to_mean_M)
        return units_M, math.sqrt(units_M @ cosines_MM @ units_M)

    excess = lambda gain: change_for(gain)[1] - radius
    low = float((norms_M * cosines_to_mean_M).min())
    high = float((norms_M * (cosines_to_mean_M + radius)).min())  # no change within the radius gives more
    # Near 0 the gain counts in units of the shortest gradient.
    accuracy = {"xtol": 1e-15 * norms_M.min(), "rtol": 1e-15, "maxiter": 1000}
    gain = high if excess(high) <= 0 else brentq(excess, low, high, **accuracy)
    units_M, length = change_for(gain)
    return radius / length * units_M / norms_M if length > 0 else units_M
