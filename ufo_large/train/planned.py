"""Before the first step on a GPU: does the run fit the card, and which settings would?

The first rank plans (ufo_large.planning), all hear of it. On processors nothing is planned.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ufo_large.config import apply_overrides
from ufo_large.distributed import comm
from ufo_large.planning.cluster import Cluster
from ufo_large.planning.gpus import GIB, GPUS, Gpu
from ufo_large.planning.loads import sizes_of
from ufo_large.planning.plan import Planner
from ufo_large.planning.search import fastest, nearest
from ufo_large.processes.heartbeat import HEARTBEAT, beat
from ufo_large.runs.config import RunConfig

OFF = "--set check_memory=false starts all the same"


def planned(
    config: RunConfig, data: str, ds: Mapping[str, Any] | None, device: torch.device, auto: bool
) -> RunConfig:
    """Return the config to train; with `auto`, checkpointing and micro-batches are the fastest that fit.

    Images per step stay the recipe's. Raises ValueError on all ranks where the run does not fit, with the
    nearest settings that do.
    """
    gpu = gpu_of(device)
    if gpu is None:
        if auto:
            raise comm.AgreedError("--auto plans for the memory of GPUs, and there is none; drop it")
        return config
    if not (auto or config.check_memory) or (ds is None and comm.world_size() > 1):  # refused elsewhere
        return config
    with HEARTBEAT.slowly():
        beat("planning")
        chosen = comm.agreed(lambda: _assignments(config, data, ds, gpu, auto) if comm.is_main() else [])
        chosen = comm.all_gather_objects(chosen)[0]
    if chosen and comm.is_main():
        print(f"--auto: {' '.join(chosen)}")
    return apply_overrides(config, chosen)


def gpu_of(device: torch.device) -> Gpu | None:
    """Return this rank's GPU with the memory that it has; None for a processor.

    Rates only order the choices, and are an H200's whatever the card.
    """
    if device.type != "cuda":
        return None
    found = torch.cuda.get_device_properties(device)
    return replace(GPUS["h200"], name=found.name, memory=float(found.total_memory))


def _assignments(
    config: RunConfig, data: str, ds: Mapping[str, Any] | None, gpu: Gpu, auto: bool
) -> list[str]:
    """Return what to set instead of the recipe's; nothing where it fits as it is."""
    planner = Planner(
        config,
        sizes_of(config, data),
        Cluster(gpu, comm.world_size()),
        read_ds=lambda _: ds,
        shardings=(),  # the engine is the one that was asked for
    )
    if auto:
        return fastest(planner).assignments
    plan = planner.plan(planner.asked)
    if plan.fits:
        return []
    told = (
        f"a step needs about {plan.memory.needed / GIB:.1f} GiB of a rank's GPU, and {gpu.name} has "
        f"{gpu.memory / GIB:.1f}"
    )
    try:
        words = " ".join(nearest(planner).settings)
    except ValueError as error:
        raise ValueError(f"{told}. {error}; {OFF}") from None
    raise ValueError(f"{told}; this fits: {words}; or let --auto choose; {OFF}")
