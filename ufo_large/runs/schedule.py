"""The learning rate as a function of the step; no state, so nothing to resume."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Linear warm-up, then half a cosine down to `final_share` (Loshchilov, Hutter 2017, arXiv:1608.03983).

    `warmup_steps`: optimizer steps of the warm-up. `final_share`: rate at the last step over the peak.
    """

    warmup_steps: int = 0
    final_share: float = 0.01

    def __post_init__(self):
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps={self.warmup_steps}: must be 0 or more")
        if not 0 <= self.final_share <= 1:
            raise ValueError(f"final_share={self.final_share}: must be between 0 and 1")

    def factor(self, step: int, total_steps: int) -> float:
        """Return the rate of 0-based `step` as a share of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, total_steps - self.warmup_steps - 1)
        return self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
