"""Memory of a rank while it trains: what it holds between steps, and what a step adds, live and reserved.

A step is replayed on a model of torch's caching allocator: the states first, then each task's micro-batch as
it was recorded, then the optimizer. Gathered weights and gradients on their way have streams, and so pools,
of their own. Twice, because the second step finds the segments that the first one left.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ufo_large.planning.allocator import Block, CachingAllocator, OutOfMemory
from ufo_large.planning.micro_batch import MicroBatch
from ufo_large.planning.recording import Key
from ufo_large.planning.states import FLOAT32, Counts, Sharding, States

GIB = 2**30
STEPS = 2
CONTEXT, COMMUNICATION = 0.6 * GIB, 0.5 * GIB
"""Not torch's, and assumed: a CUDA context and kernels; NCCL's buffers where there are other ranks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankMemory:
    """Bytes. `states`: by part, between steps; `gathered`: weights of one task; `passing`: of a step.

    `passing` is the most that activations, heads, losses and gradients took on top, `by_task` that of each.
    `live`: the most that tensors took, as torch.cuda.max_memory_allocated. `reserved`: the most that the
    allocator asked of the card; `outside`: what is not torch's. `retries`: how often free segments had to be
    given back in a step. `fits` is None where no limit was given.
    """

    states: dict[str, float]
    on_host: dict[str, float]
    gathered: float
    passing: float
    by_task: dict[str, float]
    live: float
    reserved: float
    outside: float
    retries: int
    fits: bool | None

    @property
    def needed(self) -> float:
        """What the card must have."""
        return self.reserved + self.outside


def rank_memory(
    states: States,
    micro_batches: Mapping[str, MicroBatch],
    counts: Counts,
    sharding: Sharding,
    limit: float | None = None,
) -> RankMemory:
    """Replay steps of these tasks; `limit`: bytes that the card has."""
    outside = outside_bytes(sharding)
    gathered = max(gathered_bytes(counts, sharding, task) for task in micro_batches)
    side = gathered + reducing_bytes(sharding)
    room = None if limit is None else limit - outside - side
    replay = _Replay(room)
    fits = None if limit is None else True
    held = sum(states.on_gpu.values())
    try:
        replay.run(states, micro_batches, counts, sharding)
    except OutOfMemory:
        fits = False
        replay = _Replay(None)
        replay.run(states, micro_batches, counts, sharding)
    return RankMemory(
        states=states.on_gpu,
        on_host=states.on_host,
        gathered=gathered,
        passing=max(replay.by_task.values()),
        by_task=replay.by_task,
        live=held + max(max(replay.by_task.values()) + side, replay.optimizer),
        reserved=replay.allocator.peak_reserved + side,
        outside=outside,
        retries=replay.allocator.retries,
        fits=fits,
    )


def outside_bytes(sharding: Sharding) -> float:
    """Return what is not torch's."""
    return CONTEXT + (COMMUNICATION if sharding.world > 1 else 0)


def standing_bytes(states: States, counts: Counts, sharding: Sharding) -> float:
    """Return what a card must have whatever a micro-batch takes."""
    gathered = max(gathered_bytes(counts, sharding, task) for task in counts.active)
    return sum(states.on_gpu.values()) + gathered + reducing_bytes(sharding) + outside_bytes(sharding)


def gathered_bytes(counts: Counts, sharding: Sharding, task: str) -> float:
    """Return what the whole weights of a task's micro-batch take; nothing where they are whole anyway."""
    if sharding.stage < 3 or (sharding.world == 1 and not sharding.offloads_weights):
        return 0.0
    return float(sharding.element * min(counts.active[task], sharding.max_live))


def reducing_bytes(sharding: Sharding) -> float:
    """Return what a bucket of gradients takes on its way: a copy in the order of ranks, a float32 part."""
    if sharding.stage < 3:
        return 0.0
    return sharding.bucket * (sharding.element + FLOAT32 / sharding.world)


class _Replay:
    def __init__(self, limit: float | None):
        self.allocator = CachingAllocator(limit)
        self.by_task: dict[str, float] = {}
        self.optimizer = 0.0

    def run(
        self,
        states: States,
        micro_batches: Mapping[str, MicroBatch],
        counts: Counts,
        sharding: Sharding,
    ) -> None:
        allocator = self.allocator
        for size in states.on_gpu.values():
            allocator.allocate(round(size))
        held = allocator.live
        for _ in range(STEPS):
            for task, micro_batch in micro_batches.items():
                allocator.peak_live = held
                self.micro_batch(micro_batch, keeps_gradients=sharding.stage < 3)
                self.by_task[task] = max(self.by_task.get(task, 0), allocator.peak_live - held)
            allocator.peak_live = held
            self.step(counts, sharding)
            self.optimizer = max(self.optimizer, allocator.peak_live - held)

    def micro_batch(self, recorded: MicroBatch, keeps_gradients: bool) -> None:
        blocks: dict[Key, Block] = {}
        for event in recorded.events:
            if event.size:
                blocks[event.key] = self.allocator.allocate(event.size)
            elif not (event.gradient and keeps_gradients):
                self.allocator.free(blocks.pop(event.key))
        for block in blocks.values():
            self.allocator.free(block)

    def step(self, counts: Counts, sharding: Sharding) -> None:
        """Allocate what the optimizer needs for a moment."""
        share = counts.trained / sharding.world
        if sharding.stage == 3:
            sizes = [] if sharding.offloads_optimizer else [FLOAT32 * min(sharding.sub_group, share)]
        elif sharding.stage:  # the combined gradient from all ranks, then each rank's part of it
            sizes = [FLOAT32 * counts.shared, FLOAT32 * share]
        else:
            sizes = []
        for block in [self.allocator.allocate(round(size)) for size in sizes]:
            self.allocator.free(block)
