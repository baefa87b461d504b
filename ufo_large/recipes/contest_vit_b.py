"""The recipe `contest_vit_g` with DINOv2's ViT-B/14 in its place, for 8 GPUs of 40 GB: 140 M parameters.

    sh launchers/train.sh

The machine of the challenge's own baseline (ViT-B/16, 8 A100 of 40 GB), whose figures were never published.
Every input, head and tile is that of `contest_vit_g`, so that the two compare trunks. Registers keep the maps
of dense tasks free of outliers (arXiv:2309.16588).

Planned as there, not measured: 10 GiB per rank of 8 (6 live), 0.6 s per step on H200, 3.2 hours; the host
is what it waits for. The checkpointing is `none`, since there is room.

    python launchers/plan.py --recipe contest_vit_b --gpus 8 --gpu h200
"""

from dataclasses import replace

from ufo_large.recipes import contest_vit_g
from ufo_large.routing import ROUTERS
from ufo_large.runs.config import RunConfig


def recipe() -> RunConfig:
    """Return the config of the run."""
    config = contest_vit_g.recipe()
    trunk = replace(
        config.model.trunk,
        name="vit_base_patch14_reg4_dinov2",
        drop_path=0.1,
        checkpointing="none",
        router=ROUTERS["task"].Config(blocks=tuple(range(6, 12))),
    )
    return replace(
        config,
        name="contest_vit_b",
        model=replace(config.model, trunk=trunk),
        optimizer=replace(config.optimizer, layer_decay=0.75),
        pretrained="timm/vit_base_patch14_reg4_dinov2.lvd142m",
    )
