"""What a rank holds between steps: weights, optimizer, gradients, by ZeRO stage. Bytes, from counts alone.

DeepSpeed 0.19.8 and what this project keeps beside it (`distributed.task_gradients`, `local_gradients`,
`ema`). Under stage 3 all of it is cut over the ranks. In stages 1 and 2 weights are whole, and so are the
float32 sums of gradients, because task gradients are measured before they are cut. Plain torch cuts nothing,
and a shared gradient is summed in its task's copy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ufo_large.models.multitask import MultitaskModel
from ufo_large.structures import role_of

FLOAT32 = 4
MOMENTS = 2 * FLOAT32
SUB_GROUP, BUCKET, MAX_LIVE, PREFETCH = 10**9, 5 * 10**8, 10**9, 5 * 10**7
"""DeepSpeed's defaults, in elements."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Parameters: all, those that train, of these those that are shared; what each task uses and trains."""

    all: int
    trained: int
    shared: int
    active: Mapping[str, int]
    trained_by: Mapping[str, int]

    @classmethod
    def of(cls, model: MultitaskModel) -> "Counts":
        parameters = [(p.numel(), p.requires_grad, role_of(p).task) for p in model.parameters()]
        return cls(
            all=sum(n for n, _, _ in parameters),
            trained=sum(n for n, trains, _ in parameters if trains),
            shared=sum(n for n, trains, task in parameters if trains and task is None),
            active={t: sum(n for n, _, task in parameters if task in (None, t)) for t in model.tasks},
            trained_by={
                t: sum(n for n, trains, task in parameters if trains and task in (None, t))
                for t in model.tasks
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharding:
    """What a DeepSpeed JSON says, over `world` ranks. `stage` 0 is plain torch in one process.

    `element`: bytes of a weight as the model computes with it. Sizes of buckets are in elements.
    """

    stage: int
    world: int
    element: int
    offloads_optimizer: bool = False
    offloads_weights: bool = False
    sub_group: int = SUB_GROUP
    bucket: int = BUCKET
    max_live: int = MAX_LIVE
    prefetch: int = PREFETCH
    secondary: int = 1

    @classmethod
    def of(cls, ds: Mapping[str, Any] | None, world: int) -> "Sharding":
        """Read a checked DeepSpeed JSON; None for plain torch."""
        if ds is None:
            return cls(stage=0, world=1, element=FLOAT32)
        zero = ds["zero_optimization"]
        offloads = lambda what: (zero.get(what) or {}).get("device", "none") != "none"
        return cls(
            stage=zero["stage"],
            world=world,
            element=2 if ds.get("bf16", {}).get("enabled") else FLOAT32,
            offloads_optimizer=offloads("offload_optimizer"),
            offloads_weights=offloads("offload_param"),
            sub_group=int(zero.get("sub_group_size", SUB_GROUP)),
            bucket=int(zero.get("reduce_bucket_size", BUCKET)),
            max_live=int(zero.get("stage3_max_live_parameters", MAX_LIVE)),
            prefetch=int(zero.get("stage3_prefetch_bucket_size", PREFETCH)),
            secondary=int(zero.get("zero_hpz_partition_size", 1)),
        )

    @property
    def name(self) -> str:
        """As `ZeRO-3, optimizer in host memory`."""
        told = f"ZeRO-{self.stage}" if self.stage else "plain torch"
        where = [name for name, off in self._offloads if off]
        return f"{told}, {' and '.join(where)} in host memory" if where else told

    @property
    def _offloads(self) -> Sequence[tuple[str, bool]]:
        return ("optimizer", self.offloads_optimizer), ("weights", self.offloads_weights)


@dataclass(frozen=True, slots=True)
class States:
    """Bytes by part: on the GPU, and in host memory where something is offloaded."""

    on_gpu: dict[str, float]
    on_host: dict[str, float]


def states_of(counts: Counts, sharding: Sharding, averaged: bool, tasks: int | None = None) -> States:
    """Return what a rank holds between steps. `averaged`: the weights' average is kept too.

    `tasks`: how many copies of the shared gradient are kept apart (None: one for each task).
    """
    rows = len(counts.active) if tasks is None else tasks
    whole = sharding.stage < 3
    weights = {"weights": sharding.element * counts.all / (1 if whole else sharding.world)}
    if not whole and sharding.secondary > 1:
        weights["weights, second copy"] = sharding.element * counts.all / sharding.secondary
    share = counts.trained / sharding.world
    optimizer = {"moments": MOMENTS * share}
    if sharding.stage:
        optimizer = {"float32 weights": FLOAT32 * share, **optimizer}
    if averaged:
        optimizer["average of weights"] = FLOAT32 * share
    summed = counts.trained if sharding.stage else counts.trained - counts.shared
    gradients = {"gradients": FLOAT32 * (summed if whole else share)}
    rows_bytes = {"gradients of each task": FLOAT32 * rows * counts.shared / sharding.world}
    buckets = {"gradient bucket": float(sharding.element * sharding.bucket)} if not whole else {}
    on_host: dict[str, float] = {}
    on_gpu: dict[str, float] = {**buckets}
    (on_host if sharding.offloads_weights else on_gpu).update(weights)
    (on_host if sharding.offloads_optimizer else on_gpu).update(optimizer)
    # stage 3 accumulates where the optimizer is; the others on the GPU
    (on_host if sharding.offloads_optimizer and not whole else on_gpu).update(gradients | rows_bytes)
    return States(on_gpu, on_host)
