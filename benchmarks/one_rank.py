"""One rank of a world whose others are not there: real model, real DeepSpeed, collectives that only count.

torch's fake process group answers every collective at once; a gather repeats this rank's own shard, so values
mean nothing, but memory, order, number and size of the collectives are those of a real run.
"""

import os
import time
from collections import Counter

import torch
import torch.distributed as dist
import workload
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ufo_large.models import Trunk
from ufo_large.structures import role_of
from ufo_large.train.steps import StepRunner

GIB = 2**30


class Collectives(TorchDispatchMode):
    """Count the collectives issued inside, by kind: how many, and how many bytes the whole tensors have."""

    def __init__(self):
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.namespace == "c10d":
            kind = operation._schema.name.removeprefix("c10d::").strip("_").removesuffix("_base")
            sizes = [sum(t.nbytes for t in tree_leaves(a) if isinstance(t, torch.Tensor)) for a in args]
            self.calls[kind] += 1
            self.bytes[kind] += max(sizes)
        return operation(*args, **(kwargs or {}))


def join_fake_world(world_size: int) -> None:
    """Become rank 0 of `world_size` ranks that do not exist."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(world_size), LOCAL_WORLD_SIZE="1")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)


def measure(trunk: Trunk.Config, ds: dict, world: int, side: int, steps: int) -> dict:
    """Build a routed model sharded over `world` ranks, take `steps` optimizer steps; return what it saw.

    `ds`: a complete DeepSpeed config. Images are `side` pixels square, one a task: parameters, gradients and
    states are real, work is small.
    """
    join_fake_world(world)
    marks, model_config = {}, workload.model_config(trunk)
    marks["imports"] = lap(None)
    model = workload.build_model(model_config, ds)
    marks["model"] = lap(marks["imports"])
    engine = workload.build_engine(model, ds, torch.device("cpu"))
    marks["engine"] = lap(marks["model"])
    runner = workload.build_runner(engine, dict.fromkeys(("cls", "dec", "seg"), side))
    rates = workload.rates(engine, model)
    for step in range(steps):
        with Collectives() as seen:
            logged = runner.run(step, rates)
    marks["steps"] = lap(marks["engine"])
    return {
        "world": world,
        "side": side,
        "steps": steps,
        "seconds": {k: mark["seconds"] for k, mark in marks.items()},
        "peak_gib": {k: mark["peak_gib"] for k, mark in marks.items()},
        "numel": numel_by_role(model),
        "held_bytes": held_bytes(runner),
        "between_steps_gib": workload.resident_gib(),
        "collectives": {k: [n, seen.bytes[k]] for k, n in sorted(seen.calls.items())},
        "used_bytes": sum(used_bytes(model, info.name) for info in workload.TASKS),
        "loss": {k: v for k, v in logged.items() if k.endswith("/total")},
    }


def lap(previous: dict[str, float] | None) -> dict[str, float]:
    """Return clock, seconds since `previous`, the peak of resident memory since then; start a new peak."""
    now, peak = time.perf_counter(), workload.peak_gib()
    workload.reset_peak()
    return {"clock": now, "seconds": now - previous["clock"] if previous else 0.0, "peak_gib": peak}


def numel_by_role(model: nn.Module) -> dict[str, int]:
    """Return the parameters of the whole model: all, the trunk's, the shared ones."""
    return {
        "all": sum(p.ds_numel for p in model.parameters()),
        "trunk": sum(p.ds_numel for p in model.trunk.parameters()),
        "shared": sum(p.ds_numel for p in model.parameters() if role_of(p).kind == "shared"),
    }


def used_bytes(model: nn.Module, task: str) -> int:
    """Return the bytes of the parameters that a micro-batch of `task` uses."""
    used = [p for p in model.parameters() if role_of(p).task in (None, task)]
    return sum(p.ds_numel * p.ds_tensor.element_size() for p in used)


def held_bytes(runner: StepRunner) -> dict[str, int]:
    """Return the bytes of what this rank holds between steps, read off the tensors themselves."""
    optimizer = runner.engine._optimizer
    states = [
        v for s in optimizer.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)
    ]
    shards = [p.ds_tensor for p in runner.engine.module.parameters()]
    masters = list(optimizer.fp32_partitioned_groups_flat)
    held = {
        "parameters": shards,
        "float32 copy": masters,
        "gradients": [optimizer.grad_partitions_flat_buffer],
        "Adam's moments": states,
        "task gradients": [runner.gradients._rows],
    }
    return {name: storage_bytes(tensors) for name, tensors in held.items()}


def storage_bytes(tensors: list[torch.Tensor]) -> int:
    """Return the bytes behind `tensors`; what several of them share counts once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()}
    return sum(storages.values())
