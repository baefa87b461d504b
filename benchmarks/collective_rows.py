"""What `collectives.py` traces: schedules of training, and on which ranks of which world."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import workload
from one_rank import Schedule

from ufo_large.runs.optimizer import OptimizerConfig
from ufo_large.testing.models import TINY_TASKS, tiny_model, tiny_model_with
from ufo_large.testing.tasks import SMALL_DECODERS

GPUS_PER_NODE = 8
NARROW = "ViT-g, narrow"
NARROWER = 16
BUCKETS = {
    *("reduce_bucket_size", "sub_group_size", "stage3_prefetch_bucket_size"),
    *("stage3_max_live_parameters", "stage3_max_reuse_distance"),
}
ONCE = ((0, 1),)
IN_TURN = (ONCE, ONCE, ONCE)
CONFIGS = sorted(path.stem for path in (workload.ROOT / "ds_configs").glob("*.json"))
SAMPLES = {8: (0, 1, 7), 64: (0, 9, 63), 1024: (0, 9, 1023)}
"""Ranks of a world that stand for all: the first, the second of the first or second node, the last."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: which schedule, on which ranks of how many, under which of `ds_configs/`."""

    schedule: str
    ds: str
    world: int
    ranks: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.schedule}/{self.ds}/{self.world}"

    def build(self) -> tuple[Schedule, dict[str, Any]]:
        """Return what is trained and the complete DeepSpeed config."""
        ds = workload.read_ds(self.ds)
        if self.schedule == NARROW:
            narrow_buckets(ds["zero_optimization"])
        return {**toy_schedules(), NARROW: narrow}[self.schedule](), ds


def rows() -> list[Row]:
    """Return all rows: every rank of 8 for each schedule and of 64 for one, else a sample of ranks."""
    small = list(toy_schedules())
    found = [Row(small[0], "zero3_bf16", world, tuple(range(world))) for world in (8, 64)]
    found += [Row(NARROW, ds, 8, (0,)) for ds in CONFIGS[::-1]] + [Row(NARROW, "zero3_bf16_hpz", 64, (0,))]
    found += [Row(name, "zero3_bf16", 8, tuple(range(8))) for name in small[1:]]
    found += [Row(small[0], ds, 8, SAMPLES[8]) for ds in CONFIGS if ds != "zero3_bf16"]
    found += [Row(small[1], "zero3_bf16", 64, SAMPLES[64]), Row(small[0], "zero3_bf16", 1024, SAMPLES[1024])]
    found += [Row(small[0], "zero3_bf16_hpz", world, SAMPLES[world]) for world in (64, 1024)]
    return found


def toy_schedules() -> dict[str, Callable[[], Schedule]]:
    """Return makers of what the small model is trained on, by name: tasks in turn first."""
    heads = [("linear", "fcos", "dense"), ("arcface", "detr", "mask2former"), ("grid", "rf_detr", "eomt")]
    several, halves = (((0, 2),), ONCE, ((0, 3),)), (ONCE, ((0, 0.5),), ((0, 1.5),))
    return {
        "toy, in turn": partial(toy, "task", heads[0], IN_TURN),
        "toy, 2, 1 and 3 micro-batches": partial(toy, "learned, all parts", heads[1], several),
        "toy, one rests every other step": partial(toy, "token_topk", heads[2], halves),
        "toy, one rests from step 2": partial(toy, "residual", heads[0], (ONCE, ((0, 2), (2, 0)), ONCE)),
        "toy, first block frozen": partial(toy, "task", heads[0], IN_TURN, frozen_blocks=1),
    }


def toy(router: str, heads: Iterable[str], stages: Iterable[Any], **trunk: Any) -> Schedule:
    """Return the tiny model with these heads for TINY_TASKS, and their micro-batches."""
    model = tiny_model(router, depth=2, checkpointing="full", drop_path=0.1, **trunk)
    for info, head in zip(TINY_TASKS, heads, strict=True):
        own = tiny_model_with(info.kind, head).heads[info.kind]
        own = replace(own, **SMALL_DECODERS.get(head, {}), **({"blocks": 1} if head == "eomt" else {}))
        model = replace(model, heads={**model.heads, info.kind: own})
    by_task = dict(zip((info.name for info in TINY_TASKS), stages, strict=True))
    optimizer = OptimizerConfig(learning_rate=1e-4, layer_decay=0.9)
    return Schedule(model=model, optimizer=optimizer, tasks=TINY_TASKS, stages=by_task, side=32)


def narrow() -> Schedule:
    """Return ViT-g's 40 blocks, a shared and an expert path per task in each, at 1 / `NARROWER` of its width.

    At full width it is a row of zero3_full_size.py, with the same collectives.
    """
    trunk = workload.trunk_config("ViT-g/14", "learned", "full", embed_dim=1408 // NARROWER, num_heads=2)
    model = workload.model_config(trunk, pyramid_width=256 // NARROWER)
    optimizer = OptimizerConfig(learning_rate=1e-4, layer_decay=0.9)
    stages = {info.name: ONCE for info in workload.TASKS}
    return Schedule(model=model, optimizer=optimizer, tasks=workload.TASKS, stages=stages, side=56)


def narrow_buckets(zero_config: dict[str, Any]) -> None:
    """Make buckets and limits hold as many of the narrow model's weights as they hold of ViT-g's."""
    for key in BUCKETS & zero_config.keys():
        zero_config[key] //= NARROWER**2
