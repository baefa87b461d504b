"""Pull gradients towards the cosine that the tasks usually have."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.gram import GramBalancer
from ufo_large.balancing.projection_order import projection_orders


class GradVac(GramBalancer):
    """Raise a pair's cosine to its moving average where it is below.

    Gradient vaccine, Wang et al. 2020, arXiv:2010.05874. PCGrad acts on negative cosines only; here
    the goal is learned per pair, so mild conflict counts too. The goals start at 0 and are kept by task
    names.
    """

    state_names = ("goals",)

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(GramBalancer.Config):
        """`beta`: how fast a pair's goal follows its cosine (paper: 0.01)."""

        beta: float = 0.01

        def __post_init__(self):
            GramBalancer.Config.__post_init__(self)
            if not 0 <= self.beta <= 1:
                raise ValueError(f"beta={self.beta}: must be in 0..1")

        def build(self, tasks: tuple[str, ...], seed: int) -> "GradVac":
            return GradVac(tasks, seed, self)

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        super().__init__(tasks, seed, config)
        self.goals = {task: dict.fromkeys(tasks, 0.0) for task in tasks}

    def combine(self, tasks: tuple[str, ...], norms_M: Tensor, cosines_MM: Tensor) -> Tensor:
        parts_MM = torch.diag(norms_M)  # row i: the corrected gradient i in terms of the unit gradients
        for i, order in enumerate(projection_orders(self.tasks, tasks, self.generator)):
            goals = self.goals[tasks[i]]
            for j in order:
                length = math.sqrt(max(0.0, (parts_MM[i] @ cosines_MM @ parts_MM[i]).item()))
                cosine = (cosines_MM[j] @ parts_MM[i]).item() / length if length > 0 else 0.0
                goal = goals[tasks[j]]
                if cosine < goal:
                    parts_MM[i, j] += length * _pull(min(1.0, max(-1.0, cosine)), goal)
                goals[tasks[j]] = (1 - self.config.beta) * goal + self.config.beta * cosine
        return parts_MM.sum(dim=0) / norms_M


def _pull(cosine: float, goal: float) -> float:
    """How much of the other unit gradient brings a unit vector from `cosine` to `goal`."""
    sine_of_goal = math.sqrt(max(1e-12, 1 - goal * goal))
    return (goal * math.sqrt(1 - cosine * cosine) - cosine * sine_of_goal) / sine_of_goal
