"""Start a run again where it failed: from its last whole checkpoint, a bounded number of times."""

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ufo_large.processes.launching import TOLD_TO_RANKS, launch
from ufo_large.processes.ports import with_free_port

REFUSED = 2
"""The exit code of a run whose settings or data do not fit: no restart changes that."""
LONGEST_WAIT_S = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """When to give up, and what to change before.

    `restarts`: in a row without a new checkpoint. `backoff`: seconds before the first of these, doubled
    before each further one, at most ten minutes. `min_ranks`: from the second of these on, each restart
    takes one rank of this machine less, down to this number; None keeps them all.
    """

    restarts: int = 5
    backoff: float = 10.0
    min_ranks: int | None = None

    def __post_init__(self):
        if self.restarts < 0 or self.backoff < 0:
            raise ValueError(f"restarts={self.restarts} and backoff={self.backoff:g} must not be negative")
        if self.min_ranks is not None and self.min_ranks < 1:
            raise ValueError(f"min_ranks={self.min_ranks}: give at least 1")


def supervise(command: Sequence[str], policy: Policy) -> int:
    """Run the launcher's `command` until the run ends, is refused or fails too often; return its exit code.

    Exit code 75 without a signal to this process, as after a hang or a time limit, starts it again too, and
    so does 0 without the run's weights: DeepSpeed's, where the process above its ranks was killed. A signal
    to this process ends the run, saved, with code 75; so does one other than SIGINT between two starts. Each
    start of a `deepspeed` without a port has a free one. ValueError where the command does not say what is
    needed here.
    """
    command = list(command)
    root = Path(value_of(command, "--workdir")) / "checkpoints"
    if value_of(command, "--resume") != "auto":
        raise ValueError("a restart goes on where the run was: give the command --resume auto")
    if policy.min_ranks is not None:
        value_of(command, "--num_gpus")
    failed = 0
    while True:
        before = newest_step(root)
        ended = launch(with_free_port(command))
        code = os.EX_TEMPFAIL if ended.code == 0 and not (root.parent / "weights").exists() else ended.code
        if code in (0, REFUSED) or ended.was_told:
            return code
        step = newest_step(root)
        failed = 1 if step > before else failed + 1
        if failed > policy.restarts:
            print(f"supervise: code {code}; {policy.restarts} restarts without a new checkpoint: given up")
            return code
        if policy.min_ranks is not None and failed > 1:
            command = with_fewer_ranks(command, policy.min_ranks)
        wait = min(policy.backoff * 2 ** (failed - 1), LONGEST_WAIT_S)
        print(
            f"supervise: code {code} after step {step}; start {failed} of {policy.restarts} without a "
            f"new checkpoint, in {wait:g} s",
            flush=True,
        )
        if (told := told_within(wait)) is not None:
            return code if told == signal.SIGINT else os.EX_TEMPFAIL


def newest_step(checkpoints: Path) -> int:
    """Return the step of the newest whole checkpoint, 0 where there is none."""
    steps = (file.parent.name.removeprefix("step-") for file in checkpoints.glob("step-*/complete.json"))
    return max((int(step) for step in steps if step.isdigit()), default=0)


def value_of(command: Sequence[str], option: str) -> str:
    """Return what the command gives an option; ValueError where it does not."""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word == option and following:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    raise ValueError(f"the command has no {option}; give it, so that the run is found again")


def with_fewer_ranks(command: Sequence[str], least: int) -> list[str]:
    """Return the command with one rank less, not below `least`: checkpoints are carried over exactly."""
    ranks = int(value_of(command, "--num_gpus"))
    fewer = max(min(ranks, least), ranks - 1)
    where = command.index("--num_gpus") + 1 if "--num_gpus" in command else None
    if fewer < ranks:
        print(f"supervise: {fewer} ranks instead of {ranks}, so steps see fewer images")
    if where is None:
        return [f"--num_gpus={fewer}" if w.startswith("--num_gpus=") else w for w in command]
    return [*command[:where], str(fewer), *command[where + 1 :]]


def told_within(seconds: float) -> int | None:
    """Wait; return the number of a signal to ranks at once where one comes, else None."""
    told: list[int] = []
    came = threading.Event()

    def note(number: int, frame: object) -> None:
        told.append(number)
        came.set()

    before = {number: signal.signal(number, note) for number in TOLD_TO_RANKS}
    try:
        came.wait(seconds)
        return told[0] if told else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
