"""SIGTERM: what a scheduler sends some seconds or minutes before it takes the machine away."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from ufo_large.distributed import comm

EXIT_CODE = os.EX_TEMPFAIL
"""75, "try again later": an interrupted run is whole on the disk and wants to be started again."""


class Interruption:
    """Whether this run was told to stop. The signal is noted only; between steps all ranks agree on it."""

    def __init__(self) -> None:
        self._is_noted = False
        self.is_agreed = False

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note SIGTERM inside. After an agreed one it stays without effect, so that nothing cuts the end off.

        Launchers send it again to ranks that are still writing when the first has left.
        """
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        finally:
            if not self.is_agreed:
                signal.signal(signal.SIGTERM, before)

    def agree(self) -> None:
        """Set `is_agreed` where any rank was told to stop. On all ranks."""
        self.is_agreed = comm.any_rank(self._is_noted)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._is_noted = True
