"""What a recipe needs, estimated before any machine is rented: memory of a rank, time of a step.

States of a rank are bytes per parameter over the ranks, as measured in
benchmarks/results/zero3_full_size_cpu_202611.md. The rest are rates of ViT-g on one H200
(benchmarks/results/gpu_h200_202611.md), scaled:

- activations: what `none` and `selective` held more than `full` there, per token, block and width;
- trunk: its operations at the lowest rate that its checkpointing reached under ZeRO-3 on one card;
- heads: a step of three tasks took 4.06 s, the trunk 1.7 of it, for 74,000 tokens, with linear, FCOS and
  dense heads.

Not counted: activations of heads, communication between ranks, waiting for data, evaluation, compilation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from ufo_large.models import Trunk
from ufo_large.models.multitask import MultitaskModel
from ufo_large.planning.sizes import count, forward_flops
from ufo_large.structures import TaskInfo, role_of

PEAK_FLOPS = 989e12
MFU = {"none": 0.344, "selective": 0.295, "full": 0.268, "offload": 0.237}
KEPT_BYTES = {"none": 33, "selective": 22, "full": 2, "offload": 0}
HEAD_SECONDS = (4.06 - 1.7) / 74_000
STATE_BYTES = 2 + 4 + 4 + 8
"""A parameter's bf16 value, float32 copy, gradient and Adam's moments."""
NUM_CLASSES = 100
"""Classes per task, which a recipe does not know; they hardly change the sizes."""
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Load:
    """What one rank sees of a task in a step: `micro_batches` of `images` of (height, width)."""

    images: int
    size: tuple[int, int]
    micro_batches: float


@dataclass(frozen=True, slots=True)
class RecipeCost:
    """Parameters in all, of the trunk, and those that one task uses at most; GiB of a rank; H200 seconds."""

    parameters: int
    trunk: int
    active: int
    states_gib: float
    gathered_gib: float
    activations_gib: float
    trunk_seconds: float
    head_seconds: float
    hours: float

    @property
    def memory_gib(self) -> float:
        return self.states_gib + self.gathered_gib + self.activations_gib

    def __str__(self) -> str:
        return (
            f"parameters: {self.parameters / 1e9:.2f} B, {self.trunk / 1e9:.2f} B in the trunk, "
            f"{self.active / 1e9:.2f} B for one task\n"
            f"memory per rank: {self.memory_gib:.0f} GiB (states {self.states_gib:.1f}, gathered "
            f"{self.gathered_gib:.1f}, activations of the trunk {self.activations_gib:.1f})\n"
            f"step on H200: {self.trunk_seconds + self.head_seconds:.2f} s (trunk {self.trunk_seconds:.2f}, "
            f"heads {self.head_seconds:.2f}); all steps: {self.hours:.1f} hours"
        )


def recipe_cost(
    model: MultitaskModel.Config, loads: Mapping[str, Load], steps: int, ranks: int, averaged: bool
) -> RecipeCost:
    """Estimate a model with one task of each kind in `loads`, trained under ZeRO-3 in bf16 with AdamW."""
    names = tuple(f"class {i}" for i in range(NUM_CLASSES))
    tasks = [
        TaskInfo(name=f"a_{k}", kind=k, class_names=names, class_ids=tuple(range(NUM_CLASSES))) for k in loads
    ]
    with torch.device("meta"):
        whole = model.build(tuple(tasks))
        dense = replace(model.trunk, checkpointing="none", router=Trunk.Config().router, lora=None)
        plain = dense.build(tuple(loads)).eval()
    sizes = {name: count_of(whole, name) for name in (None, *(task.name for task in tasks))}
    active = max(sizes.values())
    state = STATE_BYTES + (4 if averaged else 0)
    seconds = 3 * sum(
        load.micro_batches * load.images * forward_flops(plain, load.size) for load in loads.values()
    )
    tokens = {kind: load.images * tokens_of(whole.trunk, load.size) for kind, load in loads.items()}
    mode = model.trunk.checkpointing
    trunk_seconds = seconds / (PEAK_FLOPS * MFU[mode])
    head_seconds = HEAD_SECONDS * sum(tokens[kind] * load.micro_batches for kind, load in loads.items())
    return RecipeCost(
        parameters=count(whole),
        trunk=count(whole.trunk),
        active=active,
        states_gib=(state * count(whole) + 4 * len(loads) * sizes[None]) / ranks / GIB,
        gathered_gib=2 * active / GIB,
        activations_gib=KEPT_BYTES[mode] * max(tokens.values()) * whole.trunk.depth * whole.trunk.width / GIB,
        trunk_seconds=trunk_seconds,
        head_seconds=head_seconds,
        hours=steps * (trunk_seconds + head_seconds) / 3600,
    )


def count_of(model: MultitaskModel, task: str | None) -> int:
    """Return the parameters that all tasks share, and with `task` those of its own as well."""
    return sum(p.numel() for p in model.parameters() if role_of(p).task in (None, task))


def tokens_of(trunk: Trunk, size: tuple[int, int]) -> int:
    """Return the patches of an image."""
    return math.prod(math.ceil(side / trunk.stride) for side in size)
