"""What the methods that read gradients share: norms and cosines from the Gram matrix, made fit for solving.

Legend: M tasks.
"""

from abc import abstractmethod

import numpy as np
import torch
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


def update_shares(gram_MM: Tensor, weights_M: Tensor) -> Tensor:
    """Return each task's part of the combined gradient's squared norm, [M]; their sizes sum to 1.

    Of task k: weights[k] * <g_k, sum_j weights[j] g_j>, negative where it points against the combination.
    """
    parts_M = weights_M * (gram_MM @ weights_M)
    return parts_M / parts_M.abs().sum().clamp_min(1e-300)


def definite(cosines_MM: Tensor) -> np.ndarray:
    """Return the cosines made positive definite, by adding GRAM_ACCURACY to the diagonal.

    More is added where rounding has left a negative eigenvalue. The small addition makes solutions unique
    where gradients are linearly dependent, so that a permutation of the tasks permutes the weights.
    """
    smallest = min(0.0, torch.linalg.eigvalsh(cosines_MM)[0].item())
    return cosines_MM.numpy() + (GRAM_ACCURACY - smallest) * np.eye(len(cosines_MM))


def equal_cosines(cosines_MM: Tensor) -> Tensor:
    """Return the weights of the unit gradients whose sum v has inner product 1 with every unit gradient.

    Where gradients are linearly dependent there may be no such v: it is then the one whose inner products are
    nearest to 1 in least squares (1 projected onto the range of the cosines), which are not all equal and
    need not all be positive. The weights are all 0 where gradients exactly oppose each other. Their sum is
    the sum of these inner products and the squared length of v.
    """
    inverse_MM = torch.linalg.pinv(cosines_MM, rtol=GRAM_ACCURACY, hermitian=True)
    weights_M = inverse_MM.sum(dim=1)
    return weights_M if weights_M.sum() > GRAM_ACCURACY else torch.zeros_like(weights_M)
