"""One rank of a world whose others are not there: real model, real DeepSpeed, collectives that only count.

torch's fake process group answers every collective at once; a gather repeats this rank's own shard, so values
mean nothing, but memory, order, number and size of the collectives are those of a real run.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
import torch.distributed as dist
import workload
from collective_calls import Collectives
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from ufo_large.data.mixing import Stages
from ufo_large.models import MultitaskModel, Trunk
from ufo_large.runs.optimizer import OptimizerConfig
from ufo_large.structures import BoxTargets, MaskTargets, TaskBatch, TaskInfo, role_of
from ufo_large.testing.models import tiny_batch
from ufo_large.train import building
from ufo_large.train.facts import size
from ufo_large.train.steps import StepRunner

GIB = 2**30


def join_fake_world(world_size: int, rank: int = 0, ranks_per_node: int = 1) -> None:
    """Become a rank of `world_size` ranks of which no other exists."""
    places = {
        "RANK": rank,
        "LOCAL_RANK": rank % ranks_per_node,
        "WORLD_SIZE": world_size,
        "LOCAL_WORLD_SIZE": ranks_per_node,
    }
    os.environ.update({name: str(place) for name, place in places.items()})
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """What is trained: a model, its optimizer, and the micro-batches of each task per step."""

    model: MultitaskModel.Config
    optimizer: OptimizerConfig
    tasks: tuple[TaskInfo, ...]
    stages: Mapping[str, Stages]
    side: int


def trace(schedule: Schedule, ds: dict, world: int, rank: int, steps: int, ranks_per_node: int = 8) -> dict:
    """Build the model as a rank of `world` and take `steps` optimizer steps; return what it sent and got.

    `ds`: a complete DeepSpeed config. Each rank has images and random numbers of its own, every second one no
    target in them, so that whatever depends on these shows in the order of the collectives.
    """
    join_fake_world(world, rank, ranks_per_node)
    torch.manual_seed(rank)
    with Collectives() as built:
        model = building.build_model(schedule.model, schedule.tasks, ds)
        fill_shards(model)
        engine = workload.build_engine(model.train(), ds, torch.device("cpu"), schedule.optimizer)
    batches = {i.name: tiny_batch(i, 1, schedule.side, seed=rank) for i in schedule.tasks}
    if rank % 2:
        batches = {task: without_targets(batch) for task, batch in batches.items()}
    runner = workload.runner_of(engine, batches, schedule.stages)
    rates = [1e-4] * len(schedule.optimizer.build(model).param_groups)
    digests, need = [built.digest()], 0
    for step in range(steps):
        with Collectives() as seen:
            runner.run(step, rates)
        digests.append(seen.digest())
        need = needed_bytes(model, runner.counts, ds["zero_optimization"]["stage"])
    return {
        "rank": rank,
        "digests": digests,
        "calls": dict(sorted(seen.calls.items())),
        "gathered": seen.bytes["allgather"],
        "across_nodes": seen.bytes_across_nodes("allgather", ranks_per_node),
        "need": need,
    }


def fill_shards(model: nn.Module) -> None:
    """Give this rank's part of the parameters small values; those of rank 0 never come."""
    for parameter in model.parameters():
        getattr(parameter, "ds_tensor", parameter).data.normal_(std=0.02)
        if getattr(parameter, "ds_secondary_tensor", None) is not None:  # hpZ's copy within the machine
            parameter.ds_secondary_tensor.normal_(std=0.02)


def without_targets(batch: TaskBatch) -> TaskBatch:
    """Return the batch with no box and no labelled pixel."""
    targets = batch.targets
    if isinstance(targets, BoxTargets):
        none = {f.name: getattr(targets, f.name)[:0] for f in fields(targets)}
        return replace(batch, targets=BoxTargets(**none))
    if isinstance(targets, MaskTargets):
        return replace(batch, targets=MaskTargets(masks_BHW=torch.full_like(targets.masks_BHW, 255)))
    return batch


def needed_bytes(model: nn.Module, counts: Mapping[str, int], stage: int) -> int:
    """Return the bytes that must be gathered in a step.

    In stage 3 what each micro-batch uses, once; in stages 1 and 2 all that learns, once.
    """
    if stage == 3:
        return sum(count * used_bytes(model, task) for task, count in counts.items())
    return sum(p.nbytes for p in model.parameters() if p.requires_grad)


def lap(previous: dict[str, float] | None) -> dict[str, float]:
    """Return clock, seconds since `previous`, the peak of resident memory since then; start a new peak."""
    now, peak = time.perf_counter(), workload.peak_gib()
    workload.reset_peak()
    return {"clock": now, "seconds": now - previous["clock"] if previous else 0.0, "peak_gib": peak}


def numel_by_role(model: nn.Module) -> dict[str, int]:
    """Return the parameters of the whole model: all, the trunk's, the shared ones."""
    return {
        "all": sum(map(size, model.parameters())),
        "trunk": sum(map(size, model.trunk.parameters())),
        "shared": sum(size(p) for p in model.parameters() if role_of(p).kind == "shared"),
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
