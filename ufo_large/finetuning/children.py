"""Run the project's own commands one after another, as a person would type them."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ufo_large.config import without_credentials
from ufo_large.finetuning.machine import Machine, visible_gpus
from ufo_large.processes.launcher import STARTED_BY
from ufo_large.processes.ports import free_port

TOLD_TO_CHILDREN = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
POLL_S = 10.0
OUT_OF_MEMORY = (-signal.SIGKILL, 128 + signal.SIGKILL, 256 - signal.SIGKILL)
"""How a command ends that the kernel killed: by itself, under a shell, and under DeepSpeed's launcher."""


class ChildFailed(Exception):
    """A command ended with `code`; what was wrong it has said itself."""

    def __init__(self, code: int):
        super().__init__(f"exit code {code}")
        self.code = code


@dataclass(frozen=True, kw_only=True, slots=True)
class Children:
    """`root`: the folder of launchers/ and eval/. `plugins`: named again for every command."""

    root: Path
    machine: Machine
    plugins: Sequence[str] = ()

    def run(
        self,
        script: str,
        *arguments: str | Path,
        sharded: bool = False,
        should_leave: Callable[[], bool] = lambda: False,
    ) -> int:
        """Run a script in one process, or on all ranks under DeepSpeed where it is `sharded`.

        SIGTERM, SIGUSR1 and SIGUSR2 go on to it; it gets SIGUSR1 each time that `should_leave`, asked every
        `POLL_S` seconds, says so. Returns its exit code.
        """
        command = [*self._start(sharded), str(self.root / script), *map(str, arguments)]
        command += [word for plugin in self.plugins for word in ("--plugin", plugin)]
        print(f"$ {shlex.join(map(without_credentials, command))}", flush=True)
        child = subprocess.Popen(command, env=self._environment())
        pass_on = lambda number, frame: child.send_signal(number)
        before = {number: signal.signal(number, pass_on) for number in TOLD_TO_CHILDREN}
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return child.wait(POLL_S)
                if should_leave():
                    child.send_signal(signal.SIGUSR1)
        except KeyboardInterrupt:  # the child has it too
            return child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def must(self, script: str, *arguments: str | Path, sharded: bool = False) -> None:
        """Run a script; ChildFailed where it ends with another code than 0."""
        if code := self.run(script, *arguments, sharded=sharded):
            raise ChildFailed(code)

    def _start(self, sharded: bool) -> list[str]:
        gpus = visible_gpus()[: self.machine.gpus]
        return sharded_start(self.root, self.machine.ranks, gpus) if sharded else [sys.executable]

    def _environment(self) -> dict[str, str]:
        return environment_of(self.machine)


def sharded_start(root: Path, ranks: int, gpus: Sequence[str] = ()) -> list[str]:
    """Return the words that start a script on `ranks` ranks of this machine: `gpus`, or the first ones.

    SIGTERM to the process that they make lets the ranks save. Raises ValueError for GPUs that are not named
    by their number, which is all that DeepSpeed's launcher takes.
    """
    if others := [name for name in gpus if not name.isdecimal()]:
        raise ValueError(f"CUDA_VISIBLE_DEVICES names {', '.join(others)}; give GPUs by number, as 0,1")
    launcher = str(Path(sys.executable).with_name("deepspeed"))
    where = ["--include", f"localhost:{','.join(gpus)}"] if gpus else ["--num_gpus", str(ranks)]
    start = [sys.executable, str(root / "launchers/restartable.py"), launcher, *where]
    return [*start, "--master_port", str(free_port())]


def environment_of(machine: Machine) -> dict[str, str]:
    """Return the environment of a command that finds this one's programs and uses the machine's device.

    A training that is started in it saves and ends where this process is killed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    accelerator = {} if machine.gpus else {"DS_ACCELERATOR": "cpu"}
    return {**os.environ, "PATH": path, STARTED_BY: str(os.getpid()), **accelerator}
