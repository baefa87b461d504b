"""What ends a run before its last step: a signal, the end of its launcher, or its time limit."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import torch

from ufo_large.distributed import comm
from ufo_large.processes.launcher import LAUNCHER

EXIT_CODE = os.EX_TEMPFAIL
"""75, "try again later": an interrupted run is whole on the disk and wants to be started again."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
TIME_LIMIT = "time limit"
LAUNCHER_ENDED = "the launcher has ended"
REASONS = (*(s.name for s in SIGNALS), TIME_LIMIT, LAUNCHER_ENDED)


class Interruption:
    """Why this run must stop, if it must. A reason is noted only; between steps all ranks agree on one."""

    def __init__(self) -> None:
        self._noted: str | None = None
        self.reason: str | None = None
        """The agreed one."""

    @property
    def is_agreed(self) -> bool:
        return self.reason is not None

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note signals inside. They have no effect after an agreed reason: nothing must cut the end off.

        Launchers send SIGTERM again to ranks that are still writing when the first has left. A second SIGINT
        is the watchdog's: it does not wait for a step.
        """
        before = {number: signal.signal(number, self._note_signal) for number in SIGNALS}
        try:
            yield
        finally:
            if not self.is_agreed:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def note(self, reason: str) -> None:
        """Have the run stop for one of REASONS; the first that is noted counts."""
        self._noted = self._noted or reason

    def agree(self) -> None:
        """Set `reason` where any rank noted one. On all ranks."""
        noted = torch.tensor([float(reason == self._noted) for reason in REASONS])
        counts = comm.all_reduce_sum(noted).tolist()
        self.reason = next((reason for reason, count in zip(REASONS, counts, strict=True) if count), None)

    def _note_signal(self, signum: int, frame: FrameType | None) -> None:
        self.note(LAUNCHER_ENDED if LAUNCHER.is_over else signal.Signals(signum).name)
