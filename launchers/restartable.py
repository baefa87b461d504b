"""Run a launcher where machines are taken away: restartable.py deepspeed --num_gpus 8 launchers/train.py ...

SIGTERM goes on to the ranks alone, which save and leave with code 75 (EX_TEMPFAIL). DeepSpeed 0.19.8 does not
pass it on so: `deepspeed` dies of it and leaves the ranks behind; the process between it and the ranks gives
each 30 seconds and ends with code 1, whatever theirs is. One machine: on several, run this on each.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil


def main() -> None:
    if sys.argv[1:2] in ([], ["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] else 2)
    # a session of its own, for schedulers signal whole process groups
    launcher = subprocess.Popen(sys.argv[1:], start_new_session=True)
    told = []

    def pass_on(signum: int, frame: object) -> None:
        told.append(signum)
        ranks = list(ranks_below(launcher.pid))
        for rank in ranks:
            rank.send_signal(signum)
        if not ranks:  # none has started yet, or all have ended
            os.killpg(launcher.pid, signum)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, lambda signum, frame: os.killpg(launcher.pid, signum))
    code = launcher.wait()
    # ranks that were told before their first step have nothing to save and die of the signal
    sys.exit(os.EX_TEMPFAIL if told and code else abs(code))


def ranks_below(launcher: int) -> Iterator[psutil.Process]:
    """Yield the processes that a launcher made ranks, not what these started."""
    for process in psutil.Process(launcher).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends by itself
            if "LOCAL_RANK" in process.environ() and "LOCAL_RANK" not in process.parent().environ():
                yield process


if __name__ == "__main__":
    main()
