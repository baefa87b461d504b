"""How large the trunks are and what an image costs, computed on the meta device: nothing is allocated."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from ufo_large.kinds import KINDS
from ufo_large.models import Trunk
from ufo_large.routing import Part
from ufo_large.routing.learned import LearnedRouter

PRESETS: Mapping[str, str] = {
    "ViT-B/16": "vit_base_patch16_224",
    "ViT-L/16": "vit_large_patch16_224",
    "ViT-H/14": "vit_huge_patch14_clip_224",
    "EVA-g/14": "eva_giant_patch14_224",
    "ViT-g/14": "vit_giant_patch14_clip_224",
    "DINOv2-g/14": "vit_giant_patch14_reg4_dinov2",
    "ViT-G/14": "vit_gigantic_patch14_clip_224",
    "DINOv3-7B/16": "vit_7b_patch16_dinov3",
}
TASKS = ("classification", "detection", "segmentation")
"""The contest's three, for which the sizes of routed trunks are stated."""


def input_sizes() -> dict[str, tuple[int, int]]:
    """Return (height, width) of the table's images by kind of task; rounded up to whole patches."""
    return {kind.name: kind.input_size for kind in KINDS.values()}


@dataclass(frozen=True, slots=True)
class TrunkSize:
    """`shape`: width / depth / heads / MLP. `parameters`: of the routed trunk; `active`: one task uses.

    `forward_flops`: task -> floating-point operations of one image's forward pass (a product of n x k and
    k x m counts 2nkm); a training step takes three times that.
    """

    preset: str
    name: str
    shape: str
    parameters: int
    active: int
    forward_flops: dict[str, int]


def trunk_size(
    preset: str, inputs: Mapping[str, tuple[int, int]] | None = None, parts: tuple[Part, ...] = ("mlp",)
) -> TrunkSize:
    """Size up a preset with {shared, one expert a task} on `parts` of every block; one path runs.

    Blocks are alike, so operations and experts are measured on trunks of one and two blocks.
    """
    config = Trunk.Config(name=PRESETS[preset])
    with torch.device("meta"):
        vit = config.build_vit()
        short = [replace(config, depth=n).build(TASKS).eval() for n in (1, 2)]
        routed = replace(config, depth=1, router=LearnedRouter.Config(blocks=(0,), parts=parts)).build(TASKS)
    depth, choice = len(vit.blocks), 2 * len(routed.banks())
    experts = count(routed) - count(short[0])
    flops = {
        task: [forward_flops(trunk, size) for trunk in short]
        for task, size in (inputs or input_sizes()).items()
    }
    return TrunkSize(
        preset=preset,
        name=PRESETS[preset],
        shape=f"{vit.embed_dim} / {depth} / {_heads(vit)} / {vit.blocks[0].mlp.fc2.in_features}",
        parameters=count(vit) + depth * experts,
        active=count(vit) + depth * choice,
        forward_flops={task: one + (depth - 1) * (two - one) for task, (one, two) in flops.items()},
    )


def _heads(vit: torch.nn.Module) -> int:
    return vit.blocks[0].attn.num_heads


def count(module: torch.nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def forward_flops(trunk: Trunk, size: tuple[int, int]) -> int:
    """Return the operations of a dense trunk on the meta device for one image of (height, width)."""
    images = torch.empty(1, 3, *size, dtype=torch.uint8, device="meta")
    sizes = torch.empty(1, 2, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter:
        trunk(images, sizes, trunk.tasks[0])
    return counter.get_total_flops()


def size_table(sizes: Iterable[TrunkSize]) -> str:
    """Return a Markdown table: billions of parameters, forward TFLOP an image."""
    heads = [f"{task} {height}x{width}" for task, (height, width) in input_sizes().items()]
    rows = [
        ["trunk", "timm name", "width / depth / heads / MLP", "routed, B", "active, B", *heads],
        ["---"] * 3 + ["---:"] * (2 + len(heads)),
    ]
    for size in sizes:
        flops = [f"{size.forward_flops[task] / 1e12:.3f}" for task in input_sizes()]
        billions = [f"{n / 1e9:.3f}" for n in (size.parameters, size.active)]
        rows.append([size.preset, f"`{size.name}`", size.shape, *billions, *flops])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
