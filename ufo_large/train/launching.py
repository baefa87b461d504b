"""Run a launcher such as `deepspeed` so that SIGTERM reaches the ranks alone, and nothing of it is left."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

GRACE_S = 60.0
"""What ranks that their launcher left behind have for a save."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a launcher ended: its exit code, and whether SIGTERM or SIGINT asked for it."""

    code: int
    was_told: bool


def launch(command: Sequence[str]) -> Ended:
    """Run `command` in a session of its own, for schedulers signal whole process groups.

    SIGTERM goes on to the ranks alone, which save and leave with code 75 (EX_TEMPFAIL); ranks that were told
    before their first step have nothing to save and die of the signal, which also counts as 75. SIGINT goes
    to all. Processes that outlive the launcher are told to save, and killed after `GRACE_S` seconds.
    """
    launcher = subprocess.Popen(command, start_new_session=True)
    told: list[int] = []

    def pass_on(signum: int, frame: object) -> None:
        told.append(signum)
        ranks = list(_ranks_below(launcher.pid)) if signum == signal.SIGTERM else []
        for rank in ranks:
            rank.send_signal(signum)
        if not ranks:  # none has started yet, or all have ended
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launcher.pid, signum)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = launcher.wait()
        _end_those_left(launcher.pid)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    was_stopped = signal.SIGTERM in told and code != 0
    return Ended(os.EX_TEMPFAIL if was_stopped else abs(code), bool(told))


def _ranks_below(launcher: int) -> Iterator[psutil.Process]:
    """Yield the processes that a launcher made ranks, not what these started."""
    with contextlib.suppress(psutil.NoSuchProcess):  # one ends by itself
        yield from filter(_is_rank, psutil.Process(launcher).children(recursive=True))


def _is_rank(process: psutil.Process) -> bool:
    return _has_rank(process) and not _has_rank(process.parent())


def _has_rank(process: psutil.Process | None) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process is not None and "LOCAL_RANK" in process.environ()
    return False


def _end_those_left(group: int) -> None:
    left = [process for process in psutil.process_iter() if _group_of(process.pid) == group]
    for process in filter(_is_rank, left):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    if left:
        psutil.wait_procs(left, timeout=GRACE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _group_of(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None
