"""Everything a run is: the config that a recipe returns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from ufo_large.balancing import METHODS, Balancer
from ufo_large.config import choice, did_you_mean
from ufo_large.data.loader import LoaderConfig
from ufo_large.distributed.ema import ShardedEma
from ufo_large.kinds import KINDS
from ufo_large.models.multitask import MultitaskModel
from ufo_large.runs.optimizer import OptimizerConfig
from ufo_large.runs.schedule import Schedule
from ufo_large.structures import TaskInfo
from ufo_large.tracking import Tracker

EVALUATED = ("val", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """How a kind of task is fed: `micro_batches` a step on each rank, each of `loader.micro_batch` images.

    `micro_batches` may be a fraction: 0.5 is one every second step, 0 a task that rests.
    `micro_batches_from` changes it during training: {"3000": 2} from optimizer step 3000 on. A task that
    rests is left out of the step's balancing; its experts and head still coast on their momentum, as AdamW
    moves what has a zero gradient.
    """

    loader: LoaderConfig
    micro_batches: int | float = 1
    micro_batches_from: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        for step in self.micro_batches_from:
            if not str(step).isdecimal() or int(step) == 0:
                raise ValueError(f"micro_batches_from {step!r}: give a step above 0")
        for step, count in self.stages:
            if not 0 <= count < math.inf:
                raise ValueError(f"micro_batches={count} from step {step}: give 0 or more")

    @property
    def stages(self) -> tuple[tuple[int, float], ...]:
        """(first step, micro-batches a step from then on), in order."""
        later = sorted((int(step), count) for step, count in self.micro_batches_from.items())
        return ((0, self.micro_batches), *later)

    def micro_batches_in(self, steps: int) -> float:
        """Return how many micro-batches a task takes on each rank in all `steps` together."""
        stages = [*((start, count) for start, count in self.stages if start < steps), (steps, 0.0)]
        return sum((end - start) * count for (start, count), (end, _) in pairwise(stages))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One run. Which tasks exist and their classes come from the data, never from here.

    `tasks` maps a kind (classification, detection, ...), or the name of one task where it needs its
    own settings, to its feed. `seed` decides initial weights, data order and augmentation. `pretrained`:
    weights to start from: a file or folder (timm, safetensors or Hugging Face), a run's `weights/`, `hub` for
    what timm publishes for the trunk's name, or a name on the hub as `timm/vit_base_patch16_224.dino`.
    `ds`: the DeepSpeed JSON. `ema`: average the weights; validation and the final `weights/` are the
    average's. Every `evaluate_every` steps and after the last, `evaluate_split` is evaluated and logged as
    `val/<task>/<metric>`; 0 turns that off.
    `take_what_fits`: where `pretrained` is a run's weights, tasks and classes may be others than that run's.
    `check_memory`: refuse, before the first step on a GPU, a run that by calculation does not fit there.
    `trace_every`: on several GPUs, trace every so many steps one of the first rank, for the share of it in
    which the GPU waits for the network; 0 traces none, as where another profiler looks.
    `keep_best`: `weights/` are those of the validation with the best score, not the last. `patience` (which
    implies it): stop after so many validations without a better score; 0 never does.
    A checkpoint is saved every `save_every` steps and after the last. The newest `keep_checkpoints` stay;
    so do, for good, those of every `keep_every`-th step (0: none), and with `keep_best` that of the best
    validation, where one was saved at its step. `save_async`: steps go on while a copy of the checkpoint in
    host memory is written; it needs that memory.
    `on_not_finite`: `stop` at a step whose loss or gradient is not finite, or `skip` up to
    `max_skipped_steps` of them, which leave weights and optimizer as they were, or `reload`: end with the
    code that asks for a restart, try the step once more from the last checkpoint, and skip it where that does
    not help, up to as many steps. Their batches are saved in RUN/not_finite in any case.
    """

    name: str
    seed: int = 0
    steps: int
    model: MultitaskModel.Config
    tasks: Mapping[str, TaskConfig]
    pretrained: str | None = None
    take_what_fits: bool = False
    optimizer: OptimizerConfig
    schedule: Schedule = field(default_factory=Schedule)
    balancer: Balancer.Config = choice(METHODS, "tbgn")
    ema: ShardedEma.Config | None = None
    tracking: Tracker.Config = field(default_factory=Tracker.Config)
    log_every: int = 1
    trace_every: int = 1000
    evaluate_every: int = 0
    evaluate_split: str = "val"
    on_not_finite: Literal["stop", "skip", "reload"] = "stop"
    max_skipped_steps: int = 10
    check_memory: bool = True
    keep_best: bool = False
    patience: int = 0
    save_every: int = 500
    keep_checkpoints: int = 2
    keep_every: int = 0
    save_async: bool = False
    ds: str = "zero3_fp32"

    def __post_init__(self):
        for name in ("steps", "log_every", "save_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.max_skipped_steps < 1:
            raise ValueError(
                f"max_skipped_steps={self.max_skipped_steps}: at least 1; on_not_finite=stop skips none"
            )
        for name in ("patience", "evaluate_every", "keep_every", "trace_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be 0 (off) or positive")
        if self.keep_every % self.save_every:
            raise ValueError(
                f"keep_every={self.keep_every}: must be a multiple of save_every={self.save_every}: other "
                "steps are not saved"
            )
        if self.evaluate_split not in EVALUATED:
            hint = did_you_mean(self.evaluate_split, EVALUATED)
            raise ValueError(f"evaluate_split={self.evaluate_split!r}.{hint}")

    def task(self, info: TaskInfo) -> TaskConfig:
        """Return the feed of a task: by its name, else by its kind. ValueError if the recipe has neither."""
        if (feed := info.choose(self.tasks)) is not None:
            return feed
        raise ValueError(
            f"recipe {self.name!r} says nothing of task {info.name!r} ({info.kind});"
            f"{did_you_mean(info.name, [*self.tasks, *KINDS])}"
        )
