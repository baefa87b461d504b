"""A recipe outside the package: signs and brightness, a two-block ViT, four steps."""

import dataclasses

from ufo_large.config import apply_overrides
from ufo_large.data.loader import LoaderConfig
from ufo_large.recipes import demo
from ufo_large.runs.config import RunConfig, TaskConfig
from ufo_large.tasks import HEADS

SMALL = (
    *("steps=4", "save_every=2", "keep_checkpoints=2", "evaluate_every=4", "evaluate_split=test"),
    *("model.trunk.depth=2", "model.trunk.embed_dim=32", "model.trunk.num_heads=2", "model.pyramid_width=32"),
    *("tasks.detection.loader.micro_batch=2", "tasks.detection.loader.workers=0", "schedule.warmup_steps=2"),
)


def recipe() -> RunConfig:
    """Return the config."""
    base = demo.recipe()
    number = TaskConfig(loader=LoaderConfig(micro_batch=3, image_size=(32, 32), workers=0))
    heads = {"detection": base.model.heads["detection"], "brightness": HEADS["brightness"]["number"].Config()}
    config = dataclasses.replace(
        base,
        name="brightness",
        model=dataclasses.replace(base.model, heads=heads),
        tasks={"detection": base.tasks["detection"], "brightness": number},
    )
    return apply_overrides(config, SMALL)
