"""Before the first step on GPUs: does the run fit them, which settings would, and what does a step take?

The first rank plans (ufo_large.planning), all hear of it. On processors nothing is planned.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ufo_large.config import apply_overrides
from ufo_large.distributed import comm
from ufo_large.distributed.checkpoint import complete_checkpoints
from ufo_large.planning.cluster import Cluster
from ufo_large.planning.gpus import GIB, GPUS, Gpu, gpu_of_card
from ufo_large.planning.loads import sizes_of
from ufo_large.planning.plan import Plan, Planner
from ufo_large.planning.search import fastest, nearest
from ufo_large.processes.heartbeat import HEARTBEAT, beat
from ufo_large.runs.config import RunConfig
from ufo_large.runs.folder import RunFolder

OFF = "--set check_memory=false starts all the same"
GOES_ON = (
    "; the run that goes on keeps the checkpointing and micro-batches with which it began: give it more "
    "GPUs, or larger ones"
)
OF_TIME = ("step_seconds", "time", "hours", "gpu_hours", "energy_kwh")
"""What is not told of a GPU whose rates are not known."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The config to train; `plan` of it as JSON values, on the first rank where one was made."""

    config: RunConfig
    plan: dict[str, Any] | None = None


def planned(
    config: RunConfig,
    data: str,
    ds: Mapping[str, Any] | None,
    device: torch.device,
    auto: bool,
    saved: RunConfig | None = None,
) -> Planned:
    """Return the config to train; with `auto`, checkpointing and micro-batches are the fastest that fit.

    Images per step stay the recipe's. `saved`: the config of the run that goes on, whose checkpointing and
    micro-batches `auto` takes instead: it is to stay the same run, whatever GPUs it now has. Raises
    ValueError on all ranks where the run does not fit, with the nearest settings that do.
    """
    gpu = gpu_of(device)
    if gpu is None:
        if auto:
            raise comm.AgreedError("--auto plans for the memory of GPUs, and there is none; drop it")
        return Planned(config)
    if not (auto or config.check_memory) or (ds is None and comm.world_size() > 1):  # refused elsewhere
        return Planned(config)
    goes_on = auto and saved is not None
    if goes_on:
        config = with_choices_of(config, saved)
        if not config.check_memory:
            return Planned(config)
    local_ranks = comm.all_gather_objects(comm.local_rank())
    cluster = Cluster(gpu, len(local_ranks), machines(local_ranks))
    with HEARTBEAT.slowly():
        beat("planning")
        found = comm.agreed(
            lambda: (
                _plan(_planner(config, data, ds, cluster), auto and not goes_on, goes_on)
                if comm.is_main()
                else None
            )
        )
        chosen, plan = comm.all_gather_objects(found)[0]
    HEARTBEAT.stop()  # weights may have to be downloaded before the first step gives its signs
    if chosen and comm.is_main():
        print(f"--auto: {' '.join(chosen)}")
    return Planned(apply_overrides(config, chosen), plan if comm.is_main() else None)


def going_on(folder: RunFolder, resume: str) -> RunConfig | None:
    """Return the config of the run that `--resume` goes on with; None where none was saved."""
    if resume == "none" or not complete_checkpoints(folder.checkpoints):
        return None
    return folder.read().config


def with_choices_of(config: RunConfig, saved: RunConfig) -> RunConfig:
    """Return `config` with what `--auto` chooses as `saved` has it."""
    tasks = dict(config.tasks)
    for key in tasks.keys() & saved.tasks.keys():
        feed, before = tasks[key], saved.tasks[key]
        loader = replace(feed.loader, micro_batch=before.loader.micro_batch)
        stages = {name: getattr(before, name) for name in ("micro_batches", "micro_batches_from")}
        tasks[key] = replace(feed, loader=loader, **stages)
    trunk = replace(config.model.trunk, checkpointing=saved.model.trunk.checkpointing)
    return replace(config, tasks=tasks, model=replace(config.model, trunk=trunk))


def machines(local_ranks: list[int]) -> int:
    """Return on how many machines the ranks are spread; 1 where unevenly, which no plan is made for."""
    count = max(1, local_ranks.count(0))
    return count if len(local_ranks) % count == 0 else 1


def gpu_of(device: torch.device) -> Gpu | None:
    """Return this rank's GPU with the memory that it has; None for a processor.

    One that is not known has an H200's rates, which only order the choices.
    """
    if device.type != "cuda":
        return None
    found = torch.cuda.get_device_properties(device)
    name, memory = found.name, float(found.total_memory)
    return gpu_of_card(name, memory) or replace(GPUS["h200"], name=name, memory=memory, card="")


def _planner(config: RunConfig, data: str, ds: Mapping[str, Any] | None, cluster: Cluster) -> Planner:
    """Return what plans the run; its engine, and so its sharding, is the one that was asked for."""
    return Planner(config, sizes_of(config, data), cluster, read_ds=lambda _: ds, shardings=())


def _plan(planner: Planner, choose: bool, goes_on: bool) -> tuple[list[str], dict[str, Any]]:
    """Return what to set instead of the recipe's, nothing where it fits as it is, and the plan."""
    plan = fastest(planner) if choose else planner.plan(planner.asked)
    if not plan.fits:
        raise ValueError(f"{_needs(planner, plan)}{GOES_ON if goes_on else _advice(planner)}; {OFF}")
    body = planner.described(plan)
    if not planner.cluster.gpu.card:
        body |= dict.fromkeys(OF_TIME)
    return plan.assignments, body


def _needs(planner: Planner, plan: Plan) -> str:
    gpu = planner.cluster.gpu
    return (
        f"a step needs about {plan.memory.needed / GIB:.1f} GiB of a rank's GPU, and {gpu.name} has "
        f"{gpu.memory / GIB:.1f}"
    )


def _advice(planner: Planner) -> str:
    try:
        return f"; this fits: {' '.join(nearest(planner).settings)}; or let --auto choose"
    except ValueError as error:
        return f". {error}"
