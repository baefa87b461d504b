"""End a rank with the launcher that started it, saved where there is something to save.

DeepSpeed 0.19.8 starts ranks through two processes: `deepspeed` (the runner) waits for
`deepspeed.launcher.launch`, which starts the ranks and waits for them. Where either is killed, the ranks
would go on with nobody to report to, or to end them.
"""

import os
import signal
import threading
import time

import psutil

from ufo_large.processes.heartbeat import HEARTBEAT

LAUNCHERS = (
    *("deepspeed.launcher.launch", "torch.distributed.run", "torch.distributed.launch", "torchrun"),
    "accelerate",
)
"""How the command of a process begins that starts ranks and waits for them."""
STARTED_BY = "UFO_STARTED_BY"
"""The variable in which a command that starts trainings gives its process id."""
RUNNERS = ("deepspeed", "deepspeed.pt", "ds", "deepspeed.launcher.runner")
LOOK_S = 1.0
LONGEST_END_S = 120.0
"""A rank without a launcher that gives no sign of life for so long is waiting for one that is gone."""


def launchers() -> list[psutil.Process]:
    """Return the processes without which this one has no launcher, the nearest first.

    None where none that we know started it. The shell or scheduler above them is not among these: a run
    under nohup or setsid outlives it, and so do ranks that a script put into the background.
    """
    parents = psutil.Process().parents()
    for count, process in enumerate(parents, 1):
        if str(process.pid) == os.environ.get(STARTED_BY):
            return parents[:count]
    if "LOCAL_RANK" not in os.environ:
        return []
    begun = [_begin_of(process) for process in parents]
    count = next((n for n, words in enumerate(begun, 1) if words & {*LAUNCHERS}), 0)
    is_run = 0 < count < len(parents) and begun[count] & {*RUNNERS}
    return parents[: count + 1] if is_run else parents[:count]


def _begin_of(process: psutil.Process) -> set[str]:
    """Return the first words of a process's command: program, script or module, without their folders."""
    try:
        return {os.path.basename(word) for word in process.cmdline()[:4]}
    except psutil.Error:
        return set()


class LauncherWatch:
    """Sends this process SIGTERM once a launcher of it has ended, and ends it if that has no effect."""

    def __init__(self) -> None:
        self.is_over = False

    def start(self) -> None:
        """Watch from now on, where a launcher started this process; let every signal count."""
        for notice in (signal.SIGUSR1, signal.SIGUSR2):  # launchers/restartable.py has them ignored
            signal.signal(notice, signal.SIG_DFL)
        if watched := launchers():
            threading.Thread(target=self._watch, args=(watched,), name="launcher", daemon=True).start()

    def _watch(self, watched: list[psutil.Process]) -> None:
        while all(map(is_alive, watched)):
            time.sleep(LOOK_S)
        self.is_over = True
        os.kill(os.getpid(), signal.SIGTERM)
        begun = time.monotonic()
        while _quiet_s(begun) < LONGEST_END_S:
            time.sleep(LOOK_S)
        os._exit(os.EX_TEMPFAIL)


def _quiet_s(begun: float) -> float:
    """Return the seconds since the last sign of life, or since `begun`; a long work's seconds count less."""
    sign = HEARTBEAT.last
    if sign is None:
        return time.monotonic() - begun
    return (time.monotonic() - max(sign.at, begun)) / sign.patience


def is_alive(process: psutil.Process) -> bool:
    """Whether the process runs: neither gone nor waiting for its parent to take note of its end."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


LAUNCHER = LauncherWatch()
"""This process's own."""
