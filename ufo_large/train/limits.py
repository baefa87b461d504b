"""How long a run may take, and how long it may be silent."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """`ends_at`: when to have saved and left, in time.monotonic()'s seconds; None: when all steps are done.

    `hang_timeout_s`: how long a rank may give no sign of life before the run ends; None: for ever.
    """

    ends_at: float | None = None
    hang_timeout_s: float | None = None

    def __post_init__(self):
        timeout = self.hang_timeout_s
        if timeout is not None and not (timeout > 0 and math.isfinite(timeout)):
            raise ValueError(f"hang timeout {timeout} must be more than 0 seconds, or None to wait for ever")
