"""End a run that hangs: on every rank, with what each was doing, and with the code that asks for a restart.

A thread per rank counts the seconds since its last sign of life (processes/heartbeat.py). Past the limit it
writes the rank's stacks to stderr and to RUN/hangs/, tells the other ranks of its machine to do the same, and
leaves without waiting for anything. Ranks on other machines wait for this one in a collective by then, and
come to the same end by themselves.
"""

import contextlib
import os
import platform
import select
import signal
import threading
import time
from pathlib import Path

import psutil

from ufo_large.distributed import comm
from ufo_large.processes.heartbeat import HEARTBEAT, Sign
from ufo_large.train.hang_report import write_report
from ufo_large.train.interruption import EXIT_CODE

ASK = signal.SIGURG
"""What one rank's watchdog sends to the others of its machine; a process without one ignores it."""
LONGEST_TICK_S = 1.0
STOPPED_TICKS = 3
REPORT_S = 10.0
"""A report that takes longer is given up: what hangs may be the disk it goes to."""
TWICE_S = 0.3
"""A SIGINT this soon after another is the same one: launchers send it to ranks that the terminal told."""
STOP = b"\0"


def _let_go_in_child() -> None:
    """Keep a forked process from writing its signals into this one's pipe."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_let_go_in_child)


class Watchdog:
    """Watches this rank inside `with`; made and entered on all ranks, in the main thread.

    Without a limit it only ends the rank at a second SIGINT, whatever the main thread waits for.
    """

    def __init__(self, limit_s: float | None, folder: Path):
        self._limit_s, self._folder = limit_s, folder
        self._tick_s = LONGEST_TICK_S if limit_s is None else min(LONGEST_TICK_S, limit_s / 5)
        self._others = [] if limit_s is None else _others_here()
        self._interrupts: list[float] = []

    def __enter__(self) -> "Watchdog":
        HEARTBEAT.stop()  # an earlier training of this process may have left its last sign
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._ask_before = signal.signal(ASK, lambda number, frame: None)
        # the interpreter writes each signal's number there at once, also while the main thread is blocked
        self._pipe_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        HEARTBEAT.stop()
        signal.set_wakeup_fd(self._pipe_before)
        signal.signal(ASK, self._ask_before)
        os.write(self._write, STOP)
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def _watch(self) -> None:
        seen: Sign | None = None
        quiet_s = stopped_s = 0.0
        looked = time.monotonic()
        while STOP not in (heard := self._hear()):
            now = time.monotonic()
            gap_s, looked = now - looked, now
            # then the whole process stood still, perhaps all ranks were paused: that is no silence
            still_s = gap_s if gap_s > STOPPED_TICKS * self._tick_s else 0.0
            sign = HEARTBEAT.last
            if sign is not seen:
                seen, quiet_s, stopped_s = sign, 0.0, still_s
            else:
                quiet_s, stopped_s = quiet_s + gap_s - still_s, stopped_s + still_s
            if self._has_two_interrupts(heard, now):
                os._exit(128 + signal.SIGINT)
            is_late = self._limit_s is not None and sign and quiet_s > self._limit_s * sign.patience
            if is_late or ASK in heard:
                self._leave(sign, quiet_s, stopped_s)

    def _hear(self) -> bytes:
        """Return the numbers of the signals that came within one tick."""
        ready, _, _ = select.select([self._read], [], [], self._tick_s)
        return os.read(self._read, 4096) if ready else b""

    def _has_two_interrupts(self, heard: bytes, now: float) -> bool:
        is_new = not self._interrupts or now - self._interrupts[-1] > TWICE_S
        if signal.SIGINT in heard and is_new:
            self._interrupts.append(now)
        return len(self._interrupts) > 1

    def _leave(self, sign: Sign | None, quiet_s: float, stopped_s: float) -> None:
        told = (self._folder / f"rank-{comm.rank()}.txt", sign, quiet_s, stopped_s)
        report = threading.Thread(target=write_report, args=told, daemon=True)
        report.start()
        for other in self._others:
            with contextlib.suppress(psutil.Error):
                other.send_signal(ASK)
                other.resume()  # one that was stopped must go on to hear it
        report.join(REPORT_S)
        os._exit(EXIT_CODE)


def _others_here() -> list[psutil.Process]:
    """Return the other ranks on this machine that this process can send signals to."""
    me = (platform.node(), _namespace(), os.getpid())
    found = [rank[2] for rank in comm.all_gather_objects(me) if rank[:2] == me[:2] and rank != me]
    return [psutil.Process(pid) for pid in found]


def _namespace() -> str | None:
    """Return in which space process ids count; containers of one machine have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
