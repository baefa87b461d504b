"""The update with equal projections on all task gradients."""

from dataclasses import dataclass

from torch import Tensor

from ufo_large.balancing.gram import GramBalancer, equal_cosines


class IMTLG(GramBalancer):
    """Choose weights so that the update projects equally on every task's gradient, where that is possible.

    IMTL-G, Liu et al. 2021, "Towards Impartial Multi-task Learning", ICLR. It is ConFIG's direction;
    only the length differs. The paper's weights sum to 1 (here M), which leans to the shortest gradient.
    With weights of mixed signs that sum can vanish or turn negative, and the step would explode or reverse;
    so it is the absolute weights that sum to M, which is the same where all are positive.

    Linearly independent gradients always allow equal projections. Dependent ones may not: as in ConFIG the
    projections are then those nearest to equal in least squares, and a task may be harmed; where gradients
    exactly oppose each other all weights are 0.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """No options of its own."""

        def build(self, tasks: tuple[str, ...], seed: int) -> "IMTLG":
            return IMTLG(tasks, seed, self)

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        weights_M = equal_cosines(cosines_MM) / norms_M
        total = weights_M.abs().sum()
        return len(tasks) * weights_M / total if total > 0 else weights_M
