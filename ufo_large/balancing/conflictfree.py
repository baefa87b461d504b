"""The update with the same cosine to all task gradients (ConFIG)."""

from dataclasses import dataclass

from torch import Tensor

from ufo_large.balancing.gram import GRAM_ACCURACY, GramBalancer, equal_cosines


class ConFIG(GramBalancer):
    """Step in the direction that has the same positive cosine with every gradient, where there is one.

    Liu et al. 2024, arXiv:2408.11104, eq. 2: v = pinv(unit gradients) 1, u = v / |v|, and the update is
    (sum_k g_k . u) u. In terms of the cosines C that is v = sum_k b_k g_k / |g_k| with b = pinv(C) 1.

    Linearly independent gradients always have such a direction. Dependent ones may have none: v is then the
    vector whose inner products with the unit gradients are nearest to 1 in least squares. The cosines differ
    and a task may be harmed; if that is one with a long gradient, the published length turns the step to -u.
    What always holds: the step is the projection of the plain sum onto u, so the sum of the losses falls.
    Where gradients exactly oppose each other v is 0 and so are the weights: the trunk waits.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """No options of its own."""

        def build(self, tasks: tuple[str, ...], seed: int) -> "ConFIG":
            return ConFIG(tasks, seed, self)

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        b_M = equal_cosines(cosines_MM)
        projections = norms_M @ cosines_MM @ b_M
        return projections / b_M.sum().clamp(min=GRAM_ACCURACY) * b_M / norms_M
