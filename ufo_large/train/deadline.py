"""The time limit of a run, and whether another step still fits before it."""

import math
import time
from collections import deque

RECENT = 10


class Deadline:
    """Knows how long steps, validations and saves of this run took. `ends_at`: in time.monotonic()'s seconds.

    What was not measured yet counts as nothing: the first validation and the first save may pass the limit.
    """

    def __init__(self, ends_at: float | None = None):
        self._ends_at = math.inf if ends_at is None else ends_at
        self._steps_s: deque[float] = deque(maxlen=RECENT)
        self._validation_s = self._save_s = 0.0

    def step_took(self, seconds: float) -> None:
        self._steps_s.append(seconds)

    def hook_took(self, seconds: float, saves: bool) -> None:
        """Count what a hook took, the one that saves or another; the longest time is expected again."""
        if saves:
            self._save_s = max(self._save_s, seconds)
        else:
            self._validation_s = max(self._validation_s, seconds)

    def is_near(self, validates: bool, saves: bool = False) -> bool:
        """Whether a save after the next step would end too late.

        Before that step the run `validates` and `saves`, where it does so now.
        """
        now = (self._validation_s if validates else 0) + (self._save_s if saves else 0)
        ahead = now + max(self._steps_s, default=0.0) + self._save_s
        return time.monotonic() + ahead > self._ends_at
