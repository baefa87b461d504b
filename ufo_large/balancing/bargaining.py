"""Solve G a = a^(-1/alpha): the fair agreement that Nash-MTL and FairGrad look for.

Legend: M tasks.
"""

import numpy as np
import torch
from torch import Tensor

from ufo_large.balancing.gram import GRAM_ACCURACY


def fair_weights(norms_M: Tensor, cosines_MM: Tensor, alpha: float) -> Tensor:
    """Return the positive weights a with G a = a^(-1/alpha), G the Gram matrix of these norms and cosines.

    They minimise the convex 1/2 a G a - sum_k integral of a_k^(-1/alpha); found by Newton's method with
    backtracking, in terms of unit gradients (b_k = a_k |g_k|), which takes the scales out. GRAM_ACCURACY on
    the diagonal keeps the weights finite where gradients exactly oppose each other.
    """
    p = 1 / alpha
    norms = norms_M.numpy()
    cosines = cosines_MM.numpy() + GRAM_ACCURACY * np.eye(len(norms))
    pull = norms ** (p - 1)

    def value(b: np.ndarray) -> float:
        gain = np.log(b) if p == 1 else b ** (1 - p) / (1 - p)
        return 0.5 * b @ cosines @ b - pull @ gain

    b = pull ** (1 / (1 + p))  # the solution for orthogonal gradients
    near = 0  # steps within quadratic convergence, where values no longer tell better from worse
    for _ in range(100):
        slope = cosines @ b - pull * b**-p
        hessian = cosines + np.diag(p * pull * b ** (-p - 1))
        scale = 1 / np.sqrt(np.diag(hessian))
        step = -scale * np.linalg.solve(hessian * scale * scale[:, None], scale * slope)
        decrease = -slope @ step
        if decrease <= 1e-8 * (pull @ b ** (1 - p)):
            b, near = b + step, near + 1
            if near == 3:
                break
            continue
        size = min([1.0, *(0.9 * -b[step < 0] / step[step < 0])])
        start = value(b)
        while size > 1e-12 and value(b + size * step) > start - 0.25 * size * decrease:
            size /= 2
        b = b + size * step
    return torch.from_numpy(b / norms)
