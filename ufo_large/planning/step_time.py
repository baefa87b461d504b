"""How long a training step takes: each task's micro-batches, then the optimizer.

A micro-batch takes as long as the slower of GPU and host. DeepSpeed's hooks around the units that ZeRO-3
gathers cost the host, and leave the GPU waiting a little. Collectives run beside the computation; what they
take beyond it, and the first and the last, which have nothing to hide behind, are exposed. Waiting for data
is not counted.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ufo_large.planning.cluster import LINK_SHARE, Cluster
from ufo_large.planning.micro_batch import Load, MicroBatch
from ufo_large.planning.rates import GpuSeconds, copy_seconds, gpu_seconds
from ufo_large.planning.states import FLOAT32, Counts, Sharding

UNIT_GAP = 0.8e-3
"""Fitted on ZeRO-3's rows: the GPU waits so long at each unit in each pass; DeepSpeed's linear is in it."""
LAUNCH_ON_HOST, UNIT_ON_HOST = 50e-6, 1.3e-3
"""Seconds of the host per kernel, and per unit and pass; assumed, no benchmark here measures them."""
HIDDEN_OFFLOAD = 0.65
"""Fitted on the rows with inputs in host memory: the share of copies that runs beside the computation."""
REDUCING, STEPPING = 30, 58
"""Bytes moved per element: a bf16 gradient into a bucket, out of it and added; a step of the optimizer."""
HOST_BANDWIDTH = 200e9
"""Bytes per second of a machine's memory, shared by its ranks, for an optimizer in host memory; assumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskTime:
    """Seconds of one micro-batch: `gpu` by kind of operation, `gaps` and `copies` that it waits, `host`.

    `exposed`: of collectives. `micro_batches` of it in a step, of `images` each on every rank.
    """

    gpu: GpuSeconds
    gaps: float
    copies: float
    reducing: float
    host: float
    exposed: float
    micro_batches: float
    images: int

    @property
    def computing(self) -> float:
        return self.gpu.total + self.gaps + self.copies + self.reducing

    @property
    def seconds(self) -> float:
        """Of its share of the step."""
        return self.micro_batches * (max(self.computing, self.host) + self.exposed)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Seconds of a step."""

    tasks: dict[str, TaskTime]
    optimizer: float

    @property
    def seconds(self) -> float:
        return sum(task.seconds for task in self.tasks.values()) + self.optimizer

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        parts = {name: {"computing": t.computing, "seconds": t.seconds} for name, t in self.tasks.items()}
        return {
            "tasks": {name: asdict(task) | parts[name] for name, task in self.tasks.items()},
            "optimizer": self.optimizer,
        }


def step_time(
    micro_batches: Mapping[str, MicroBatch],
    loads: Mapping[str, Load],
    passes: Mapping[str, int],
    counts: Counts,
    sharding: Sharding,
    cluster: Cluster,
    averaged: bool,
) -> StepTime:
    """Return the time of a step in which every task has its micro-batches.

    `passes`: how often a micro-batch of the task passes the hooks of a unit, forwards and backwards.
    """
    gpu = cluster.gpu
    tasks = {}
    for task, recorded in micro_batches.items():
        hooked = passes[task] if sharding.stage == 3 else 0
        gaps, on_gpu = hooked * UNIT_GAP, gpu_seconds(recorded.work, gpu)
        tasks[task] = TaskTime(
            gpu=on_gpu,
            gaps=gaps,
            copies=2 * (1 - HIDDEN_OFFLOAD) * recorded.offloaded / (LINK_SHARE * gpu.host_link),
            reducing=copy_seconds(REDUCING * counts.trained_by[task], gpu),
            host=recorded.launches * LAUNCH_ON_HOST + hooked * UNIT_ON_HOST,
            exposed=_exposed(task, on_gpu.total + gaps, counts, sharding, cluster),
            micro_batches=loads[task].micro_batches,
            images=loads[task].images,
        )
    return StepTime(tasks=tasks, optimizer=_optimizer(counts, sharding, cluster, averaged))


def _exposed(task: str, computing: float, counts: Counts, sharding: Sharding, cluster: Cluster) -> float:
    active, trained = counts.active[task], counts.trained_by[task]
    if sharding.stage < 3:  # averaged behind the backward pass, in float32
        return 2 * cluster.gather_seconds(FLOAT32 * trained, 1) if sharding.stage else 0.0
    chunk = min(sharding.prefetch, active)
    again = max(active - sharding.max_live, 0)
    gathers, reductions = (active + again) / chunk, trained / min(sharding.bucket, trained)
    gathered = cluster.gather_seconds(sharding.element * (active + again), gathers)
    reduced = cluster.gather_seconds(sharding.element * trained, reductions)
    ends = gathered / gathers + reduced / reductions
    return ends + max(gathered + reduced - ends - computing, 0.0)


def _optimizer(counts: Counts, sharding: Sharding, cluster: Cluster, averaged: bool) -> float:
    gpu, world = cluster.gpu, sharding.world
    share, rows = counts.trained / world, len(counts.active) * counts.shared / world
    moving = (STEPPING + 3 * FLOAT32 * averaged) * share
    measuring = 4 * FLOAT32 * rows  # a copy, the inner products, the sum
    if sharding.offloads_optimizer:
        local = cluster.gpus // cluster.nodes
        over = (FLOAT32 + sharding.element) * share / (LINK_SHARE * gpu.host_link)
        return over + (moving + measuring) * local / HOST_BANDWIDTH
    seconds = copy_seconds(moving + measuring, gpu)
    if sharding.stage in (1, 2):
        seconds += cluster.gather_seconds(FLOAT32 * counts.shared + sharding.element * counts.all, 2)
    return seconds
