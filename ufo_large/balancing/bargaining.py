"""Solve G a = (s / a)^(1/alpha): the fair agreement that Nash-MTL and FairGrad look for.

Legend: M tasks.
"""

import numpy as np
import torch
from torch import Tensor

from ufo_large.balancing.gains import ROUNDING
from ufo_large.balancing.gram import definite

MOST_STEPS = 1000  # measured: 45 for lengths alike, 400 for alpha = 10 and lengths 1e8 apart
CONVERGED = 1e-6  # relative change of a step; the error left is its square


def fair_weights(norms_M: Tensor, cosines_MM: Tensor, alpha: float, shares_M: Tensor | float = 1.0) -> Tensor:
    """Return the positive weights a with G a = (shares / a)^(1/alpha).

    G is the Gram matrix of these norms and cosines. They minimise the convex 1/2 a G a - sum_k integral of
    (shares_k / a_k)^(1/alpha); found by Newton's method in terms of unit gradients (b_k = a_k |g_k|), which
    takes the scales out. A step changes no b_k by more than itself (damped by the largest relative change)
    and is halved while the slope along it would turn steeply upward.
    The small term of `definite` keeps the weights finite where gradients exactly oppose each other.

    Raises LinAlgError, a ValueError, where the steps neither come to rest nor leave only rounding errors.
    """
    p = 1 / alpha
    norms = norms_M.numpy()
    cosines = definite(cosines_MM)
    pull = np.asarray(shares_M) ** p * norms ** (p - 1)

    def slope(b: np.ndarray) -> np.ndarray:
        return cosines @ b - pull * b**-p

    b = pull ** (1 / (1 + p))  # the solution for orthogonal gradients
    for _ in range(MOST_STEPS):
        hessian = cosines + np.diag(p * pull * b ** (-p - 1))
        scale = 1 / np.sqrt(np.diag(hessian))
        step = -scale * np.linalg.solve(hessian * scale * scale[:, None], scale * slope(b))
        change = np.abs(step / b).max()
        size = 1 / (1 + change)
        while size > 1e-3 and step @ slope(b + size * step) > 0.5 * abs(step @ slope(b)):
            size /= 2
        b = b + size * step
        if change < CONVERGED or bool((np.abs(slope(b)) <= ROUNDING * (np.abs(cosines) @ b)).all()):
            return torch.from_numpy(b / norms)
    raise np.linalg.LinAlgError(
        f"no fair weights found in {MOST_STEPS} steps with alpha={alpha} for the norms {norms.tolist()} and "
        f"the cosines {cosines_MM.tolist()}: choose a smaller alpha or another method"
    )
