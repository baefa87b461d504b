"""Run a launcher such as `deepspeed` so that signals reach the ranks alone, and nothing of it is left."""

import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from ufo_large.processes.parent import end_with_parent

TOLD_TO_RANKS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
GRACE_S = 60.0
"""What ranks that their launcher left behind have for a save."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a launcher ended: its exit code, and whether a signal to this process asked for it."""

    code: int
    was_told: bool


def launch(command: Sequence[str]) -> Ended:
    """Run `command` in a session of its own, for schedulers signal whole process groups.

    SIGTERM, SIGUSR1, SIGUSR2 and SIGINT go on to the ranks alone, which save and leave with code 75
    (EX_TEMPFAIL); so do ranks that are told before their first step, and have nothing to save. A second
    SIGINT ends everything at once. Processes that outlive the launcher are told to save, and killed after
    `GRACE_S` seconds. ValueError where there is no such launcher.
    """
    before = functools.partial(_before_launcher, os.getpid())
    try:
        launcher = subprocess.Popen(command, start_new_session=True, preexec_fn=before)
    except OSError as error:
        raise ValueError(
            f"{command[0]}: cannot be started ({error}); give a launcher that is on the PATH, or its path"
        ) from error
    told: list[int] = []

    def pass_on(signum: int, frame: object) -> None:
        told.append(signum)
        if told.count(signal.SIGINT) > 1:
            _signal_group(launcher.pid, signal.SIGKILL)
            return
        ranks = list(_ranks_below(launcher.pid))
        for rank in ranks:
            rank.send_signal(signum)
        if not ranks:  # none has started yet, or all have ended
            _signal_group(launcher.pid, signal.SIGTERM)

    handlers = {signum: signal.signal(signum, pass_on) for signum in TOLD_TO_RANKS}
    try:
        code = launcher.wait()
        _end_those_left(launcher.pid)
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    if told.count(signal.SIGINT) > 1:
        return Ended(128 + signal.SIGINT, was_told=True)
    # ranks that were told before their first step have nothing to save and die of the signal
    is_told = any(signum != signal.SIGINT for signum in told)
    return Ended(os.EX_TEMPFAIL if is_told and code else abs(code), was_told=bool(told))


def _before_launcher(me: int) -> None:
    """Let the launcher end with this process, and outlive what a scheduler sends to all processes."""
    end_with_parent(signal.SIGTERM, me)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


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
        _signal_group(group, signal.SIGKILL)


def _group_of(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _signal_group(group: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signum)
