"""What a recipe needs on a cluster: memory of a rank, time of a step, and what all steps cost."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ufo_large.models.checkpointing import Checkpointing
from ufo_large.models.multitask import MultitaskModel
from ufo_large.planning.cluster import Cluster
from ufo_large.planning.loads import Sizes, loads_of
from ufo_large.planning.memory import RankMemory, rank_memory, standing_bytes
from ufo_large.planning.micro_batch import FakeModel, Load, MicroBatch
from ufo_large.planning.states import Counts, Sharding, states_of
from ufo_large.planning.step_time import StepTime, step_time
from ufo_large.runs.config import RunConfig
from ufo_large.structures import role_of

SHARDINGS = ("zero2_{}", "zero3_{}", "zero3_{}_offload")
"""Names of DeepSpeed JSONs of one dtype, from few collectives to little memory."""
ReadDs = Callable[[str], dict[str, Any] | None]
"""Reads a DeepSpeed JSON by its name; None for `none`."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a plan may choose: `divided` is into how many parts the recipe's micro-batches are cut."""

    checkpointing: Checkpointing
    ds: str
    divided: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """`energy` in kWh, None where the GPU's power is not known; `price` None where no rate was given.

    `settings`: the words that make a run of the recipe this one.
    """

    choice: Choice
    settings: tuple[str, ...]
    parameters: int
    memory: RankMemory
    time: StepTime
    loads: Mapping[str, Load]
    losses: Mapping[str, str]
    steps: int
    gpus: int
    energy: float | None
    price: float | None
    sharding: str

    @property
    def fits(self) -> bool:
        return bool(self.memory.fits)

    @property
    def hours(self) -> float:
        return self.steps * self.time.seconds / 3600

    @property
    def assignments(self) -> list[str]:
        """What to set in the recipe, as `a.b=value`."""
        words = self.settings
        return [value for word, value in itertools.pairwise(words) if word == "--set"]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; bytes and seconds."""
        return {
            **asdict(self.choice),
            "fits": self.fits,
            "settings": list(self.settings),
            "parameters": self.parameters,
            "memory": {**asdict(self.memory), "needed": self.memory.needed},
            "step_seconds": self.time.seconds,
            "time": self.time.to_json(),
            "hours": self.hours,
            "gpu_hours": self.hours * self.gpus,
            "energy_kwh": self.energy,
            "price": self.price,
        }


class Planner:
    """Plans one recipe on one cluster; what it recorded for one choice serves the others.

    `price`: of an hour of one GPU. `shardings`: DeepSpeed JSONs, besides the recipe's own, to choose from;
    `{}` stands for `bf16` or `fp32`. `tell` hears what is being recorded, which takes seconds each.
    """

    def __init__(
        self,
        config: RunConfig,
        sizes: Sizes,
        cluster: Cluster,
        read_ds: ReadDs,
        price: float | None = None,
        shardings: tuple[str, ...] = SHARDINGS,
        tell: Callable[[str], object] = lambda under_way: None,
    ):
        self.config, self.sizes, self.cluster = config, sizes, cluster
        self.read_ds, self.price, self.shardings, self.tell = read_ds, price, shardings, tell
        self._models: dict[torch.dtype, FakeModel] = {}
        self._recorded: dict[tuple[Checkpointing, int, str, Load], MicroBatch] = {}

    @property
    def asked(self) -> Choice:
        """Return the choice that the recipe itself makes."""
        return Choice(self.config.model.trunk.checkpointing, self.config.ds)

    @property
    def asked_dtype(self) -> str:
        """`bf16` or `fp32`, as the recipe's DeepSpeed JSON has it."""
        return "bf16" if Sharding.of(self.read_ds(self.asked.ds), 1).element == 2 else "fp32"

    @property
    def compiles(self) -> bool:
        """Whether a GPU runs the blocks compiled; they are planned as not compiled."""
        return self.config.model.trunk.compile is not False

    @property
    def may_offload(self) -> bool:
        """Whether the routing scheme allows that blocks' inputs wait in host memory."""
        return all(m.model.trunk.router.keeps_outputs_only for m in self._models.values())

    def can_hold(self, ds: str) -> bool:
        """Whether the states and one task's whole weights fit, before anything is computed."""
        sharding = Sharding.of(self.read_ds(ds), self.cluster.gpus)
        counts = Counts.of(self._model(sharding).model)
        states = states_of(counts, sharding, self.config.ema is not None)
        return standing_bytes(states, counts, sharding) <= self.cluster.gpu.memory

    def plan(self, choice: Choice) -> Plan:
        """Return the plan of a choice. Raises ValueError where it cannot be trained at all."""
        config, cluster = self.config, self.cluster
        sharding = Sharding.of(self.read_ds(choice.ds), cluster.gpus)
        if sharding.world != cluster.gpus:
            raise ValueError(
                f"--ds {choice.ds} trains in one process; give --gpus 1, or a JSON such as zero3_bf16"
            )
        model = self._model(sharding)
        counts, loads = Counts.of(model.model), loads_of(config, self.sizes, choice.divided)
        if not loads:
            raise ValueError("every task rests in all steps; give one micro_batches above 0")
        self._refuse_what_no_gpu_holds(loads, sharding.element)
        recorded = {task: self._record(choice, model, task, load) for task, load in loads.items()}
        averaged = config.ema is not None
        passes = {t: units_of(model.model, t) * (4 if choice.checkpointing != "none" else 2) for t in loads}
        states = states_of(counts, sharding, averaged)
        time = step_time(recorded, loads, passes, counts, sharding, cluster, averaged)
        gpu_hours = config.steps * time.seconds / 3600 * cluster.gpus
        power = cluster.gpu.power
        return Plan(
            choice=choice,
            settings=self._settings(choice),
            parameters=counts.all,
            memory=rank_memory(states, recorded, counts, sharding, cluster.gpu.memory),
            time=time,
            loads=loads,
            losses={task: micro_batch.losses for task, micro_batch in recorded.items()},
            steps=config.steps,
            gpus=cluster.gpus,
            energy=None if power is None else gpu_hours * power / 1000,
            price=None if self.price is None else gpu_hours * self.price,
            sharding=sharding.name,
        )

    def _refuse_what_no_gpu_holds(self, loads: Mapping[str, Load], element: int) -> None:
        memory = self.cluster.gpu.memory
        for task, load in loads.items():
            needed = load.images * 3 * math.prod(load.size) * element
            if needed > memory:
                height, width = load.size
                raise ValueError(
                    f"micro_batch of {task}: {load.images} images of {height}x{width} take "
                    f"{needed / 2**30:.0f} GiB as pixels alone, a GPU has {memory / 2**30:.0f}; lower it"
                )

    def described(self, plan: Plan) -> dict[str, Any]:
        """Return a plan as JSON values, with what it is of."""
        cluster, config = self.cluster, self.config
        told = {"recipe": config.name, "gpu": cluster.gpu.name, "gpus": cluster.gpus, "nodes": cluster.nodes}
        return {**told, "sizes": self.sizes.source, "compiles": self.compiles, **plan.to_json()}

    def _model(self, sharding: Sharding) -> FakeModel:
        dtype = torch.bfloat16 if sharding.element == 2 else torch.float32
        if dtype not in self._models:
            self._models[dtype] = FakeModel(self.config.model, self.sizes.tasks, dtype)
        return self._models[dtype]

    def _record(self, choice: Choice, model: FakeModel, task: str, load: Load) -> MicroBatch:
        load = replace(load, micro_batches=1)
        key = (choice.checkpointing, id(model), task, load)
        if key not in self._recorded:
            self.tell(f"planning {load.images} images of {task}, checkpointing {choice.checkpointing}")
            self._recorded[key] = model.record(task, load, choice.checkpointing)
        return self._recorded[key]

    def _settings(self, choice: Choice) -> tuple[str, ...]:
        """Return what differs from the recipe, as words of `launchers/train.py`."""
        words: list[str] = []
        if choice.ds != self.asked.ds:
            words += ["--ds", choice.ds]
        if choice.checkpointing != self.asked.checkpointing:
            words += ["--set", f"model.trunk.checkpointing={choice.checkpointing}"]
        if choice.divided > 1:
            divided = loads_of(self.config, self.sizes, choice.divided)
            for task in (task for task in self.sizes.tasks if task.name in divided):
                feed, images = self.config.task(task), divided[task.name].images
                factor = feed.loader.micro_batch / images
                if factor != 1:
                    key = task.name if task.name in self.config.tasks else task.kind
                    words += ["--set", f"tasks.{key}.loader.micro_batch={images}"]
                    words += ["--set", f"tasks.{key}.micro_batches={feed.micro_batches * factor:g}"]
                    for step, count in feed.micro_batches_from.items():
                        words += ["--set", f"tasks.{key}.micro_batches_from.{step}={count * factor:g}"]
        return tuple(words)


def units_of(model: MultitaskModel, task: str) -> int:
    """Return how many of the units that ZeRO-3 gathers whole a task passes through."""
    return sum(role_of(next(unit.parameters())).task in (None, task) for unit in model.units())
