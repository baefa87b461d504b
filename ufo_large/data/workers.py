"""Worker processes of a DataLoader: their items one ahead, and one that dies is replaced once.

What a new DataLoader begins with is what the old one did not hand out, so nothing is lost or comes twice, and
batches that depend on nothing but their request are the same bits as without the death.
"""

import contextlib
import multiprocessing
import queue
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import connection
from typing import Any

from torch.utils.data import DataLoader

from ufo_large.data.errors import DataError

LOOK_EVERY_S = 1.0
REASONS = {
    signal.SIGKILL: "The system kills a large process where memory runs out, as dmesg tells: lower "
    "loader.workers or loader.micro_batch",
    signal.SIGBUS: "Shared memory is full: make /dev/shm larger, or lower loader.workers",
}
_abandoned: list[Iterator] = []
"""What belonged to dead workers: torch would wait for ever for messages that were half sent."""


class WorkerDied(RuntimeError):
    """A worker process ended without being asked to; `reason`: what its way to end mostly comes from."""

    def __init__(self, pid: int, code: int):
        """`code` as in multiprocessing: the negative number of a signal, or an exit code."""
        how = f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
        super().__init__(f"worker process {pid} {how}")
        self.reason = REASONS.get(-code, "Look at what it printed before")


class Workers:
    """Hand out what DataLoaders make; where a process of one dies, go on with another, once.

    A second death raises DataError with `what` (whose workers they are), the signal and the remedy.
    """

    def __init__(self, what: str):
        self._what = what
        self._items: Iterator | None = None
        self._death: WorkerDied | None = None

    def take(self, start: Callable[[], DataLoader]) -> Any:
        """Return the next item; `start` returns a DataLoader of all that follow those handed out."""
        while True:
            try:
                if self._items is None:
                    loader = start()
                    self._items = OneAhead(loader) if loader.num_workers else iter(loader)
                return next(self._items)
            except WorkerDied as death:
                self._items = None
                self._allow(death)

    def _allow(self, death: WorkerDied) -> None:
        if self._death is not None:
            raise DataError(
                f"{self._what}: {death}, after {self._death} and was replaced. {death.reason}; "
                "--resume auto goes on from the last checkpoint"
            )
        self._death = death
        warnings.warn(f"{self._what}: {death}; its batches are made again by new workers", stacklevel=4)

    def close(self) -> None:
        """Stop the workers; the next item starts them again."""
        if isinstance(self._items, OneAhead):
            self._items.close()
        self._items = None


class OneAhead(Iterator):
    """Take the next item in a thread while the last one is used: a hand-over costs 1 to 5 ms a batch.

    Raises WorkerDied where a process of `loader` ended and the next item is not there.
    """

    def __init__(self, loader: DataLoader):
        before = set(multiprocessing.active_children())
        with _no_errors_elsewhere():
            self._source = iter(loader)
        self._processes = [p for p in multiprocessing.active_children() if p not in before]
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        work = (self._source, self._wanted, self._found)
        self._thread = threading.Thread(target=_fetch, args=work, name="loader", daemon=True)
        self._thread.start()
        self._wanted.put(True)

    def __next__(self) -> Any:
        item, error = self._take()
        if error is None:
            self._wanted.put(True)
            return item
        self._found.put((None, error))  # for whoever asks again
        if not isinstance(error, StopIteration):
            connection.wait([p.sentinel for p in self._processes], LOOK_EVERY_S)  # its end may come after
            self._refuse_dead(error)
        raise error

    def _take(self) -> tuple[Any, BaseException | None]:
        while True:
            try:
                return self._found.get(timeout=LOOK_EVERY_S)
            except queue.Empty:
                self._refuse_dead(None)

    def _refuse_dead(self, error: BaseException | None) -> None:
        dead = [p for p in self._processes if p.exitcode]
        if not dead:
            return
        _abandoned.append(self._source)
        for process in self._processes:
            process.kill()
        raise WorkerDied(dead[0].pid, dead[0].exitcode) from error

    def close(self) -> None:
        """Wait for the item under way, let go of the source."""
        self._wanted.put(False)
        while self._thread.is_alive() and not any(p.exitcode for p in self._processes):
            self._thread.join(LOOK_EVERY_S)

    def __del__(self):
        self._wanted.put(False)


def _fetch(source: Iterator, wanted: queue.SimpleQueue, found: queue.SimpleQueue) -> None:
    while wanted.get():
        try:
            found.put((next(source), None))
        except BaseException as error:
            found.put((None, error))


@contextlib.contextmanager
def _no_errors_elsewhere() -> Iterator[None]:
    """Keep torch from raising a worker's death wherever the main thread is, be it within a collective."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)
