"""How much of its steps a rank waits for the others: a thread looks, many times a second, at what it does.

That costs no collective and changes nothing that is computed. On GPUs collectives run behind the program's
back: there a rank is seen to wait in none, or in those alone that the program itself waits for. But there it
is seen whether the GPU has anything to do: an empty stream waits for the host, which may wait for data.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import torch

from ufo_large.train.hang_report import collective

LOOK_EVERY_S = 0.05
RECENT = 100
"""Looks, of five seconds of steps."""


class _Look(NamedTuple):
    """Whether the rank was in a collective, and whether its GPU had nothing to do."""

    collective: bool
    idle: bool


class CollectiveWaits:
    """Looks at the main thread, and at the stream of a GPU, inside `with`, and there while `counting`."""

    def __init__(self, device: torch.device | None = None) -> None:
        is_gpu = device is not None and device.type == "cuda"
        self._stream = torch.cuda.current_stream(device) if is_gpu else None
        self._looks = self._waits = 0
        self._recent: deque[_Look] = deque(maxlen=RECENT)
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
        return _share([look.collective for look in list(self._recent)])

    def idle_share(self) -> float:
        """Return the share of the last looks that found the GPU without work; 0 on a processor."""
        return _share([look.idle for look in list(self._recent)])

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_EVERY_S):
            if self._is_counting:
                look = _Look(collective() is not None, self._stream is not None and self._stream.query())
                self._waits += look.collective
                self._looks += 1
                self._recent.append(look)


def _share(found: list[bool]) -> float:
    """Return the share of True; 0 of nothing."""
    return sum(found) / max(len(found), 1)
