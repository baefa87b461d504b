"""SIGTERM to a loader's worker: it counts from the trainer only.

Launchers and schedulers send SIGTERM to every process of a run. The trainer finishes and saves its step on
it, and needs the batches of its workers for that.
"""

import os
import signal
import threading


def heed_trainer_only() -> None:
    """Let SIGTERM end this worker only where the trainer sends it, to one that does not stop by itself."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_leave_when_told, args=(os.getppid(),), daemon=True).start()


def _leave_when_told(trainer: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)
