"""The recipe `contest_vit_g` with ViT-G in its place: 3.2 B parameters, from OpenCLIP's weights.

    sh launchers/train.sh --recipe contest_vit_gigantic

On eight GPUs of 80 GB; on smaller ones add `--set model.trunk.checkpointing=full` or
`--ds zero3_bf16_offload`. Planned as there, not measured: 48 GiB per rank of 8 (39 live), 2.6 s per step on
H200, 14.6 hours.

    python launchers/plan.py --recipe contest_vit_gigantic --gpus 8 --gpu h200
"""

from dataclasses import replace

from ufo_large.recipes import contest_vit_g
from ufo_large.runs.config import RunConfig


def recipe() -> RunConfig:
    """Return the config of the run."""
    config = contest_vit_g.recipe()
    router = replace(config.model.trunk.router, blocks=tuple(range(24, 48)))
    trunk = replace(config.model.trunk, name="vit_gigantic_patch14_clip_224", router=router)
    return replace(
        config,
        name="contest_vit_gigantic",
        model=replace(config.model, trunk=trunk),
        pretrained="timm/vit_gigantic_patch14_clip_224.laion2b",
    )
