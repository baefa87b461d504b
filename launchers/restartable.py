"""Run a launcher where machines are taken away: restartable.py deepspeed --num_gpus 8 launchers/train.py ...

SIGTERM, SIGUSR1, SIGUSR2 and SIGINT go on to the ranks alone, which save and leave with code 75
(EX_TEMPFAIL); a second SIGINT ends everything at once. DeepSpeed 0.19.8 does not pass them on so:
`deepspeed` dies of them, and the process between it and the ranks gives each 30 seconds and ends with
code 1, whatever theirs is. One machine: on several, run this on each.
"""

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil

from ufo_large.processes.parent import end_with_parent

TOLD_TO_RANKS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


def main() -> None:
    if sys.argv[1:2] in ([], ["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] else 2)
    # a session of its own, for schedulers signal whole process groups
    launcher = subprocess.Popen(
        sys.argv[1:], start_new_session=True, preexec_fn=functools.partial(before_launcher, os.getpid())
    )
    told = []

    def pass_on(signum: int, frame: object) -> None:
        told.append(signum)
        if told.count(signal.SIGINT) > 1:
            os.killpg(launcher.pid, signal.SIGKILL)
            return
        ranks = list(ranks_below(launcher.pid))
        for rank in ranks:
            rank.send_signal(signum)
        if not ranks:  # none has started yet, or all have ended
            os.killpg(launcher.pid, signal.SIGTERM)

    for signum in TOLD_TO_RANKS:
        signal.signal(signum, pass_on)
    code = launcher.wait()
    if told.count(signal.SIGINT) > 1:
        sys.exit(128 + signal.SIGINT)
    # ranks that were told before their first step have nothing to save and die of the signal
    is_told = any(signum != signal.SIGINT for signum in told)
    sys.exit(os.EX_TEMPFAIL if is_told and code else abs(code))


def before_launcher(me: int) -> None:
    """Let the launcher end with this process, and outlive what a scheduler sends to all processes."""
    end_with_parent(signal.SIGTERM, me)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def ranks_below(launcher: int) -> Iterator[psutil.Process]:
    """Yield the processes that a launcher made ranks, not what these started."""
    for process in psutil.Process(launcher).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends by itself
            if "LOCAL_RANK" in process.environ() and "LOCAL_RANK" not in process.parent().environ():
                yield process


if __name__ == "__main__":
    main()
