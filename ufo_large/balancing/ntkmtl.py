"""Equal convergence speeds, judged by the neural tangent kernel."""

from dataclasses import dataclass

from torch import Tensor

from ufo_large.balancing.gram import GramBalancer


class NTKMTL(GramBalancer):
    """Weight task k by sqrt(sum of all kernels' eigenvalues / its own), w_k = sqrt(trace G / G_kk).

    NTKMTL, Qin et al. 2025, arXiv:2510.18258: a task's speed of convergence follows the largest eigenvalue
    of its neural tangent kernel. The paper's NTKMTL computes the kernel from one sample, the gradient of the
    batch's mean loss, so that the eigenvalue is G_kk, the squared gradient norm. Here the weights are divided
    by the square root of the number of tasks, which gives the scale of plain summing.

    Every task's part of the update then has the same length, the root mean square of the gradient norms. So
    the direction is that of `tbgn` with equal shares, from this step's norms alone: no moving average, and a
    batch without targets is raised to the full length. Kernels of several samples (NTKMTL-SR) need the
    gradients of parts of a batch, which are not measured.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """No options of its own."""

        def build(self, tasks: tuple[str, ...], seed: int) -> "NTKMTL":
            return NTKMTL(tasks, seed, self)

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        return norms_M.square().mean().sqrt() / norms_M
