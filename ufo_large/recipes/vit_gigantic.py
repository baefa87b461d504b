"""The recipe `vit_g` with ViT-G in its place: 3.2 B parameters, `vit_gigantic_patch14_clip_224.laion2b`.

On eight GPUs of 80 GB; on smaller ones add `--set model.trunk.checkpointing=full` or
`--ds zero3_bf16_offload`.
"""

from dataclasses import replace

from ufo_large.recipes import vit_g
from ufo_large.runs.config import RunConfig


def recipe() -> RunConfig:
    """Return the config of the run."""
    config = vit_g.recipe()
    router = replace(config.model.trunk.router, blocks=tuple(range(24, 48)))
    trunk = replace(config.model.trunk, name="vit_gigantic_patch14_clip_224", router=router)
    return replace(config, name="vit_gigantic", model=replace(config.model, trunk=trunk))
