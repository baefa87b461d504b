"""Keep a training within its hours where it is slower than it was measured.

A machine that others use too may be three times slower than in the few seconds of the measurement. The
command watches the training's log from outside; where the steps would end after the deadline, it asks the
training to save and leave, and starts it again with as many steps as the time allows. The learning rate then
falls over those: a run that is cut off at a high rate is far worse than a shorter one.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ufo_large.config import read_json, to_dict, write_json
from ufo_large.finetuning.children import ChildFailed, Children
from ufo_large.finetuning.choosing import LEAST_STEPS, RESERVE
from ufo_large.runs.config import RunConfig
from ufo_large.tracking.jsonl import FILE_NAME, last_step

WATCHED_SHARE = 0.05
"""Of the training's time, before its pace is believed."""


class Pacer:
    """Reads a run's log and says when its steps have to become fewer.

    `ends_at`: when the training must be over, in the seconds of `clock`. `steps` is what would fit, None as
    long as the steps asked for do.
    """

    def __init__(self, run: Path, config: RunConfig, ends_at: float, clock: Callable[[], float]):
        self._log, self._config, self._ends_at, self._clock = run / FILE_NAME, config, ends_at, clock
        self._started = clock()
        self._last_before = last_step(self._log)
        self._first: tuple[int, float] | None = None
        self.steps: int | None = None

    def is_late(self) -> bool:
        """Whether the training should leave now and go on with `steps`; said once."""
        step, now = last_step(self._log), self._clock()
        if self.steps is not None or step <= self._last_before:
            return False
        if self._first is None:
            self._first = step, now
        first, since = self._first
        if step - first < LEAST_STEPS or now - since < WATCHED_SHARE * (self._ends_at - self._started):
            return False
        pace = (now - since) / (step - first)
        if now + (self._config.steps - step) * pace <= self._ends_at:
            return False
        left = self._ends_at - now - (since - self._started)  # it takes as long to start again
        every = self._config.evaluate_every or 1
        fitting = max(step + 1, step + int((1 - RESERVE) * left / pace))
        fitting = max(fitting // every, step // every + 1) * every
        if fitting < self._config.steps:
            self.steps = fitting
        return self.steps is not None


def train_in_time(
    run: Path, settings: Path, config: RunConfig, data: Path, children: Children, ends_at: float
) -> None:
    """Train, with fewer steps where `ends_at` (of time.monotonic) would pass. Raises ChildFailed.

    What is chosen anew is written to `settings`, which holds `config`.
    """
    arguments = ("--recipe", settings, "--data", data, "--workdir", run, "--resume", "auto")
    while True:
        pacer = Pacer(run, config, ends_at, time.monotonic)
        sharded = config.ds != "none"
        code = children.run("launchers/train.py", *arguments, sharded=sharded, should_leave=pacer.is_late)
        if code == os.EX_TEMPFAIL and pacer.steps is not None:
            print(f"slower than measured: {pacer.steps} steps, not {config.steps}, fit the time", flush=True)
            config = replace(config, steps=pacer.steps)
            write_json(settings, {**read_json(settings, "remove it"), "config": to_dict(config)})
        elif code:
            raise ChildFailed(code)
        else:
            return
