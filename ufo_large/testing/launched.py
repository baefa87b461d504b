"""Start a small training on two ranks by the `deepspeed` command, as users do; look at its processes."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from ufo_large.processes.launcher import is_alive
from ufo_large.testing.distributed import free_port
from ufo_large.testing.settings import SMALL_MODEL, TWO_IMAGES_EACH

ROOT = Path(__file__).resolve().parents[2]
START_S = 480
"""Importing torch and DeepSpeed takes minutes where a machine is busy."""
ENDLESS = ("steps=100000", "save_every=100000")


@dataclass(frozen=True, kw_only=True, slots=True)
class Launched:
    """`started`: what was typed. `everything`: all processes that it had made by its first step."""

    started: subprocess.Popen
    folder: Path
    log: Path
    everything: list[psutil.Process]

    @property
    def top(self) -> psutil.Process:
        return psutil.Process(self.started.pid)

    def told(self) -> str:
        return self.log.read_text()

    def living(self) -> list[psutil.Process]:
        return [p for p in self.everything if is_alive(p)]

    def saved_steps(self) -> int:
        """Return the finished steps of the only checkpoint, which must be whole."""
        (checkpoint,) = (self.folder / "checkpoints").iterdir()
        assert (checkpoint / "complete.json").exists()
        return int(checkpoint.name[5:])


@contextlib.contextmanager
def launched(
    shards: Path, folder: Path, *changes: str, wrapped: bool = False, options: tuple[str, ...] = ()
) -> Iterator[Launched]:
    """Yield an endless training that has taken its first step; kill what is left of it in the end.

    `wrapped`: by restartable.py. `options` of train.py, `changes` for its `--set`.
    """
    run, log = folder / "run", folder / "out"
    command = [sys.executable, "launchers/restartable.py"] if wrapped else []
    command += [str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "2"]
    command += ["--master_port", str(free_port()), "launchers/train.py", "--recipe", "demo"]
    command += ["--ds", "zero3_fp32", "--data", str(shards), "--workdir", str(run), "--resume", "auto"]
    for change in (*SMALL_MODEL, *TWO_IMAGES_EACH, *ENDLESS, *changes):
        command += ["--set", change]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    everything = []
    with log.open("w") as out:
        started = subprocess.Popen([*command, *options], cwd=ROOT, env=environment, stdout=out, stderr=out)
    try:
        metrics = run / "metrics.jsonl"
        begun = lambda: started.poll() is not None or (metrics.exists() and metrics.stat().st_size)
        wait_for(begun, START_S)
        assert started.poll() is None, log.read_text()[-3000:]
        everything = psutil.Process(started.pid).children(recursive=True)
        yield Launched(started=started, folder=run, log=log, everything=everything)
    finally:
        started.kill()
        started.wait()
        for process in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def ranks_of(top: psutil.Process) -> list[psutil.Process]:
    """Return the ranks, without the workers that they forked."""
    below = top.children(recursive=True)
    named = [p for p in below if any(word.startswith("--local_rank=") for word in p.cmdline())]
    return [p for p in named if p.parent() not in named]


def launcher_of(top: psutil.Process) -> psutil.Process:
    """Return the process of DeepSpeed that started the ranks."""
    return ranks_of(top)[0].parent()


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    """Wait until `condition()` holds; AssertionError where it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
