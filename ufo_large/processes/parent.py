"""Let a process end with the one that started it, whatever it waits for."""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent(signum: int, parent: int) -> None:
    """Have the kernel send `signum` to this process once its parent, process `parent`, has ended.

    Linux only; elsewhere nothing happens. The kernel counts the end of the thread that made this process, so
    make it in one that stays.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it had ended before the kernel was asked
        os.kill(os.getpid(), signum)
