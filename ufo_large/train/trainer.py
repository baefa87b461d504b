"""The training loop: steps, and the hooks that look at them."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from ufo_large.distributed.ema import ShardedEma
from ufo_large.models.multitask import MultitaskModel
from ufo_large.processes.heartbeat import HEARTBEAT, beat
from ufo_large.runs.config import RunConfig
from ufo_large.train.collective_waits import CollectiveWaits
from ufo_large.train.deadline import Deadline
from ufo_large.train.interruption import TIME_LIMIT, Interruption
from ufo_large.train.speed import ImageCosts, Speed
from ufo_large.train.steps import StepRunner


class Hook(Protocol):
    """Called after every optimizer step on all ranks; `finished` counts finished steps."""

    def after_step(self, finished: int, values: dict[str, float]) -> None: ...


class Trainer:
    """Runs the steps that are left. All that a step depends on is in `state_dict` and the engine."""

    def __init__(
        self,
        config: RunConfig,
        model: MultitaskModel,
        runner: StepRunner,
        rate_scales: list[float],
        ema: ShardedEma | None = None,
        costs: ImageCosts | None = None,
    ):
        self.config = config
        self.model = model
        self.runner = runner
        self.rate_scales = rate_scales
        self.ema = ema
        self.finished = 0
        self.is_stopped = False
        """Set by a hook, on all ranks, where no later step would make anything better."""
        self.interruption = Interruption()
        self.collective_waits = CollectiveWaits(torch.device(runner.engine.device))
        self.speed = Speed(runner, self.collective_waits, costs, config.trace_every)

    @property
    def is_interrupted(self) -> bool:
        """Whether the run was told to stop, and steps are left."""
        return self.interruption.is_agreed and self.finished < self.config.steps and not self.is_stopped

    def fit(self, hooks: Sequence[Hook], deadline: Deadline | None = None) -> None:
        """Run the steps that are left, or up to the end of the one in which the run is told to stop.

        It stops as well where the next step would pass the `deadline`. The last hook is the one that saves.
        """
        self.model.train()
        deadline = deadline or Deadline()
        first = self.finished
        with self.interruption.noting(), self.collective_waits:
            while self.finished < self.config.steps and not (self.is_interrupted or self.is_stopped):
                # the first one compiles
                with HEARTBEAT.slowly() if self.finished == first else contextlib.nullcontext():
                    values = self._timed_step(self.finished)
                self.finished += 1
                deadline.step_took(values["train/step_seconds"])
                if deadline.is_near(self._validates(), saves=self.finished % self.config.save_every == 0):
                    self.interruption.note(TIME_LIMIT)
                beat(f"agreeing after step {self.finished}")
                self.interruption.agree()
                self._call(hooks, values, deadline)

    def _validates(self) -> bool:
        every = self.config.evaluate_every
        return bool(every) and self.finished % every == 0

    def _call(self, hooks: Sequence[Hook], values: dict[str, float], deadline: Deadline) -> None:
        # once told to stop the last hook, which saves, comes first: the time may end at any moment
        for hook in reversed(hooks) if self.interruption.is_agreed else hooks:
            begun = time.monotonic()
            with HEARTBEAT.slowly():
                beat(f"{type(hook).__name__} after step {self.finished}")
                hook.after_step(self.finished, values)
            # a save in the background takes longer than the hook that begins it
            took = max(time.monotonic() - begun, getattr(hook, "longest_s", 0.0))
            deadline.hook_took(took, saves=hook is hooks[-1])

    def averaged(self) -> contextlib.AbstractContextManager:
        """Return a context in which the model has its averaged weights, where the run averages any."""
        return contextlib.nullcontext() if self.ema is None else self.ema.swapped()

    def _timed_step(self, step: int) -> dict[str, float]:
        config, feeds = self.config, self.runner.feeds
        self.model.trunk.route.progress = step / config.steps
        rate = config.optimizer.learning_rate * config.schedule.factor(step, config.steps)
        with self.speed.timing():
            values = self.runner.run(step, [rate * scale for scale in self.rate_scales])
            if self.ema is not None:
                self.ema.update(step + 1)
        return values | {
            "train/lr": rate,
            **self.speed.values,
            **{f"train/epoch/{task}": f.loader.epoch for task, f in feeds.items()},
            **{f"train/bad_samples/{task}": float(f.loader.bad_samples) for task, f in feeds.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "route": self.model.trunk.route.state_dict(),
            "balancer": self.runner.balancer.state_dict(),
            "mix": self.runner.mix.state_dict(),
            "loaders": {task: f.loader.state_dict() for task, f in self.runner.feeds.items()},
            "ema": None if self.ema is None else self.ema.state_dict(),
            "skipped_steps": self.runner.not_finite.skipped,
            "is_stopped": self.is_stopped,
        }

    def load_state_dict(self, finished: int, state: dict[str, Any]) -> None:
        self.finished = finished
        self.is_stopped = state.get("is_stopped", False)  # not in older checkpoints
        self.model.trunk.route.load_state_dict(state["route"])
        self.runner.balancer.load_state_dict(state["balancer"])
        self.runner.not_finite.skipped = state.get("skipped_steps", 0)  # not in older checkpoints
        self.runner.mix.load_state_dict(state["mix"])
        for task, feed in self.runner.feeds.items():
            feed.loader.load_state_dict(state["loaders"][task])
        if self.ema is not None:
            self.ema.load_state_dict(state.get("ema"))
