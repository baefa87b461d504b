"""What the methods that read gradients share: norms and cosines from the Gram matrix, and two small solvers.

Legend: M tasks, R rows of a factor (columns stand for the gradients in a space of M dimensions).
"""

from abc import abstractmethod

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from ufo_large.balancing.base import Balancer, Signals

VANISHING = 1e-12
"""A gradient shorter than this share of the longest counts as zero."""

GRAM_ACCURACY = 1e-7
"""Relative accuracy of inner products of float32 gradients: smaller eigenvalues of the cosines are noise."""


class GramBalancer(Balancer):
    """A method on the Gram matrix whose weights do not depend on a common scale of the gradients.

    `combine` sees only tasks whose gradient is not zero, at least two of them, with norms divided by their
    mean. A task with a zero gradient gets weight 1: it adds nothing to the shared parameters whatever its
    weight, and its head goes on undisturbed.
    """

    needs_gram = True

    def weights(self, signals: Signals) -> Tensor:
        norms_M, cosines_MM = norms_and_cosines(signals.gram_MM)
        weights_M = torch.ones_like(norms_M)
        alive = torch.nonzero(norms_M > 0).flatten()
        if len(alive) > 1:
            tasks = tuple(signals.tasks[i] for i in alive.tolist())
            norms_A = norms_M[alive]
            weights_M[alive] = self.combine(tasks, norms_A / norms_A.mean(), cosines_MM[alive][:, alive])
        return weights_M

    @abstractmethod
    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        """Return one weight a task from norms of mean 1 and cosines with a diagonal of 1."""


def norms_and_cosines(gram_MM: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient norms [M] (vanishing ones exactly 0) and cosines [M, M] of a Gram matrix.

    The cosines are symmetric, within -1..1 and 1 on the diagonal; those with a zero gradient are 0.
    """
    gram_MM = gram_MM.double()
    norms_M = gram_MM.diagonal().clamp(min=0).sqrt()
    norms_M = torch.where(norms_M > VANISHING * norms_M.max(), norms_M, 0.0)
    safe_M = torch.where(norms_M > 0, norms_M, 1.0)
    cosines_MM = ((gram_MM + gram_MM.T) / 2 / safe_M / safe_M[:, None]).clamp(-1, 1)
    alive_M = norms_M > 0
    cosines_MM = torch.where(alive_M & alive_M[:, None], cosines_MM, 0.0)
    return norms_M, cosines_MM.fill_diagonal_(1.0)


def factor(cosines_MM: Tensor) -> np.ndarray:
    """Return columns whose inner products are the cosines, plus GRAM_ACCURACY on the diagonal.

    The small addition makes solutions unique where gradients are parallel, so that a permutation of the
    tasks permutes the weights.
    """
    eigenvalues_M, vectors_MM = np.linalg.eigh(cosines_MM.numpy())
    return np.sqrt(eigenvalues_M.clip(min=0) + GRAM_ACCURACY)[:, None] * vectors_MM.T


def shortest_in_hull(columns_RM: np.ndarray) -> np.ndarray:
    """Return the weights (at least 0, sum 1) of the shortest vector in the convex hull of the columns.

    Exact, by non-negative least squares: with x = t * w, |A x|^2 + (sum x - 1)^2 is least for t = 1 / (1 + q)
    where q = |A w|^2, and its value q / (1 + q) grows with q; so the best x points to the best w.
    """
    lengths_M = np.linalg.norm(columns_RM, axis=0)
    scale = max(lengths_M.min(), VANISHING * lengths_M.max()) or 1.0
    stacked = np.vstack([columns_RM / scale, np.ones(columns_RM.shape[1])])
    target = np.zeros(len(stacked))
    target[-1] = 1.0
    x_M, _ = nnls(stacked, target, maxiter=100 * columns_RM.shape[1])
    return x_M / x_M.sum()


def equal_cosines(cosines_MM: Tensor) -> Tensor:
    """Return the weights of the unit gradients whose sum has the same cosine with every gradient.

    They are all 0 where no such sum exists because gradients exactly oppose each other. Their sum is the
    squared length of what they combine to.
    """
    inverse_MM = torch.linalg.pinv(cosines_MM, rtol=GRAM_ACCURACY, hermitian=True)
    weights_M = inverse_MM.sum(dim=1)
    return weights_M if weights_M.sum() > GRAM_ACCURACY else torch.zeros_like(weights_M)
