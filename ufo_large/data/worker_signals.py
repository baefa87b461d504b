"""How a loader's worker ends: when the trainer tells it to, and with the trainer.

Launchers and schedulers send their signals to every process of a run. The trainer finishes and saves its
step on them, and needs the batches of its workers for that.
"""

import multiprocessing
import os
import signal
import threading

from ufo_large.processes.parent import end_with_parent


def heed_trainer_only() -> None:
    """Let SIGTERM end this worker only where the trainer sends it, to one that does not stop by itself.

    A killed trainer takes the worker with it, also one that waits for room in a pipe: by the kernel where the
    trainer forked it, else by torch's own watch on the fork server, which ends with the trainer.
    """
    trainer = multiprocessing.parent_process().pid
    if multiprocessing.get_start_method() == "fork":
        end_with_parent(signal.SIGKILL, trainer)
    for other in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(other, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_leave_when_told, args=(trainer,), daemon=True).start()


def _leave_when_told(trainer: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)
