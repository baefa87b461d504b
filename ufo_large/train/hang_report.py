"""What a rank was doing when the run hung."""

import contextlib
import faulthandler
import functools
import os
import platform
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from ufo_large.distributed import comm
from ufo_large.processes.heartbeat import Sign

STDERR = 2
COMMUNICATION = (os.path.join("torch", "distributed"), os.path.join("deepspeed", "comm"))
HANDLES = os.path.join("deepspeed", "runtime", "zero", "partition_parameters.py")
"""Where ZeRO-3 waits for parameters that it began to gather before."""
WRAPPERS = ("wrapper", "log_wrapper")


def write_report(file: Path, sign: Sign | None, quiet_s: float, stopped_s: float) -> None:
    """Write this rank's last sign of life and the its threads' stacks to stderr and append them to `file`."""
    text = (headline(sign, quiet_s, stopped_s) + "\n").encode()
    os.write(STDERR, text)
    faulthandler.dump_traceback(STDERR)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab", buffering=0) as out:
            out.write(text)
            faulthandler.dump_traceback(out)
            out.write(b"\n")


def headline(sign: Sign | None, quiet_s: float, stopped_s: float) -> str:
    """Say in a line what this rank has been at, for how long, and how the run goes on."""
    doing = "before the first step, or after the last" if sign is None else sign.doing
    now = datetime.now(UTC).isoformat(timespec="seconds")
    who = f"{now} rank {comm.rank()}, process {os.getpid()} on {platform.node()}"
    within = f", in the collective {name}" if (name := collective()) else ""
    stopped = f"; the process itself stood still for {stopped_s:.0f} s" if stopped_s else ""
    return (
        f"{who}: the run hangs. For {quiet_s:.0f} s this rank has been at: {doing}{within}{stopped}. "
        f"The run ends with code {os.EX_TEMPFAIL}; --resume auto goes on from the last checkpoint"
    )


def collective() -> str | None:
    """Return the collective that the main thread is in, by the innermost function of its library."""
    frame = sys._current_frames().get(threading.main_thread().ident)
    while frame is not None:
        code = frame.f_code
        if name := _collective_of(code.co_filename, code.co_qualname):
            return name
        frame = frame.f_back
    return None


@functools.cache  # called for every frame of a stack, many times a second
def _collective_of(file: str, function: str) -> str | None:
    if HANDLES in file:
        return function if function.endswith(".wait") else None
    is_one = any(part in file for part in COMMUNICATION) and function.rpartition(".")[2] not in WRAPPERS
    return function.rpartition(".")[2] if is_one else None
