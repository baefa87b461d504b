"""Run one of the project's scripts as its command line would, in a process that has its imports already."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ufo_large.processes.ports import free_port
from ufo_large.testing.distributed import rank_environment

ROOT = Path(__file__).resolve().parents[2]


def run_script(
    *words: Any, ranks: int = 1, timeout: float = 600.0, packages: Path | None = None
) -> subprocess.CompletedProcess:
    """Run `words`, a script below the project's root and its options; return its code, output and errors.

    Forked from a process that has imported torch and the trainer, which saves each call those seconds. All
    else is as under `python` (`ranks`: as under a launcher that tells every rank where the others are;
    `packages`: a folder where more are installed). The code is that of a rank which failed by itself, where
    one did. Raises subprocess.TimeoutExpired.

    What libraries read from the environment when they are imported is already read: take `run_python` then.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ufo_large.testing.preload"])
    command, port = [str(word) for word in words], free_port()
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    if packages is not None:
        environment["PYTHONPATH"] = f"{packages}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        started = []
        for rank in range(ranks):
            told = environment if ranks == 1 else environment | rank_environment(rank, ranks, port)
            started.append(context.Process(target=_become, args=(command, told, out, err)))
        for process in started:
            process.start()
        in_time = _wait(started, time.monotonic() + timeout)
        output, errors = out.read_text(), err.read_text()
    if not in_time:
        raise subprocess.TimeoutExpired(command, timeout, output, errors)
    codes = [process.exitcode for process in started]  # below 0: killed, perhaps since another had failed
    code = max(codes) or min(codes)
    return subprocess.CompletedProcess(command, code, output, errors)


def run_python(*words: Any) -> subprocess.CompletedProcess:
    """Run `python words` from the project's root in a process that imports everything itself."""
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def _wait(started: Sequence[Any], deadline: float) -> bool:
    """Join all; where one has failed, kill the others soon after. Return whether that was in time."""
    failed = False
    while running := [p for p in started if p.is_alive()]:
        if not failed and any(p.exitcode for p in started if p not in running):
            failed, deadline = True, time.monotonic() + 10.0
        if time.monotonic() > deadline:
            for process in running:
                process.kill()
                process.join()
            return failed
        running[0].join(timeout=0.1)
    return True


def _become(command: list[str], environment: dict[str, str], out: Path, err: Path) -> None:
    """Be `python command` from the project's root; how it ends is multiprocessing's to tell."""
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for number, file in ((1, out), (2, err)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
    multiprocessing.set_start_method(None, force=True)  # what `python` has, not the forking process's
    added = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv, sys.path[0:0] = command, [str(Path(command[0]).parent), *filter(None, added)]
    atexit._clear()  # what the forking process has to do at its own end
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out
