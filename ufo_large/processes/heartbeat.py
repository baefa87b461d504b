"""Signs of life: who works says what it does now, who watches sees when the next sign is late."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

SLOW = 3
"""How many times longer a sign may be away while something long is under way."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What the process began to do `at` (seconds of time.monotonic), and how patient a watcher should be."""

    doing: str
    patience: int
    at: float = field(default_factory=time.monotonic)


class Heartbeat:
    """The last sign of this process; None while nobody works who gives any."""

    def __init__(self) -> None:
        self.last: Sign | None = None
        self._patience = 1

    def beat(self, doing: str) -> None:
        self.last = Sign(doing, self._patience)

    @contextlib.contextmanager
    def slowly(self) -> Iterator[None]:
        """Ask for more patience inside: for compilation, validation and saving."""
        before, self._patience = self._patience, SLOW
        try:
            yield
        finally:
            self._patience = before

    def stop(self) -> None:
        """Give no more signs: nobody is to expect one."""
        self.last = None


HEARTBEAT = Heartbeat()
"""This process's own."""


def beat(doing: str) -> None:
    """Say what this process begins to do."""
    HEARTBEAT.beat(doing)
