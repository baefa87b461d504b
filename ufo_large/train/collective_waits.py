"""How much of its steps a rank waits for the others: a thread looks, many times a second, at what it does.

That costs no collective and changes nothing that is computed. On GPUs collectives run behind the program's
back: there a rank is seen to wait in none, or in those alone that the program itself waits for.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

from ufo_large.train.hang_report import collective

LOOK_EVERY_S = 0.05
RECENT = 100
"""Looks, of five seconds of steps."""


class CollectiveWaits:
    """Looks at the main thread inside `with`, and there while `counting`."""

    def __init__(self) -> None:
        self._looks = self._waits = 0
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._is_counting = False
        self._is_over = threading.Event()

    def __enter__(self) -> "CollectiveWaits":
        self._is_over.clear()
        self._thread = threading.Thread(target=self._look, name="collective waits", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        self._is_counting = True
        try:
            yield
        finally:
            self._is_counting = False

    def take_share(self) -> float:
        """Return the share of the looks since the last call that found this rank in a collective."""
        share = self._waits / max(self._looks, 1)
        self._looks = self._waits = 0
        return share

    def recent_share(self) -> float:
        """Return the share of the last looks, in the last seconds of steps, that found it so."""
        recent = list(self._recent)
        return sum(recent) / max(len(recent), 1)

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_EVERY_S):
            if self._is_counting:
                is_waiting = collective() is not None
                self._waits += is_waiting
                self._looks += 1
                self._recent.append(is_waiting)
