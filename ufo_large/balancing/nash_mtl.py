"""The update on which the tasks would agree in a bargaining game."""

from dataclasses import dataclass

from torch import Tensor

from ufo_large.balancing.bargaining import fair_weights
from ufo_large.balancing.gram import GramBalancer


class NashMTL(GramBalancer):
    """Nash bargaining between the tasks (Navon et al. 2022, arXiv:2202.01017, claim 3.1): G a = 1 / a.

    It does not change when a task's loss is rescaled: the direction depends on the cosines alone. The
    update always has the length sqrt(M), here times the mean gradient norm, which makes one task's weight 1.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """No options of its own."""

        def build(self, tasks: tuple[str, ...], seed: int) -> "NashMTL":
            return NashMTL(tasks, seed, self)

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        return fair_weights(norms_M, cosines_MM, alpha=1.0)
