"""Rotate and scale the gradients until they are orthogonal and equally long."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchjd.aggregation import AlignedMTLWeighting

from ufo_large.balancing.gram import GRAM_ACCURACY, GramBalancer


class AlignedMTL(GramBalancer):
    """Align the principal components of the gradients (Senushkin et al. 2023, arXiv:2305.19000, algorithm 1).

    The weights are sqrt(lambda_min) * G^(-1/2) 1 from the eigenvalues of the Gram matrix, by TorchJD. All
    components shrink to the smallest: two nearly parallel gradients make a very small update. A component
    that the accuracy of the Gram matrix cannot tell from zero (one gradient is the sum of two others) is no
    component: else the sign of a rounding error would decide the size of the update.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """No options of its own."""

        def build(self, tasks: tuple[str, ...], seed: int) -> "AlignedMTL":
            return AlignedMTL(tasks, seed, self)

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        weighting = AlignedMTLWeighting(pref_vector=torch.ones_like(norms_M))
        gram_MM = cosines_MM * norms_M * norms_M[:, None]
        zeros = int((torch.linalg.eigvalsh(cosines_MM) <= len(tasks) * GRAM_ACCURACY).sum())
        if zeros:
            squares_M, vectors_MM = torch.linalg.eigh(gram_MM)
            squares_M[:zeros] = -squares_M[-1]  # TorchJD leaves out what is not positive
            gram_MM = vectors_MM * squares_M @ vectors_MM.T
        return weighting(gram_MM)
