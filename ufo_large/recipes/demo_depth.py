"""Four tasks jointly from scratch on two CPU cores: the demo's three, and depth estimation.

make demo-depth
"""

from dataclasses import replace

from ufo_large.data.loader import LoaderConfig
from ufo_large.data.transforms import TRANSFORMS
from ufo_large.recipes import demo
from ufo_large.runs.config import RunConfig, TaskConfig
from ufo_large.tasks import HEADS


def recipe() -> RunConfig:
    """Return the demo with a fourth task."""
    base = demo.recipe()
    head = HEADS["depth"]["dense_depth"].Config(strides=(4, 8))
    loader = LoaderConfig(
        micro_batch=3, image_size=(128, 192), transform=TRANSFORMS["depth"].Config(), workers=1
    )
    return replace(
        base,
        name="demo_depth",
        model=replace(base.model, heads={**base.model.heads, "depth": head}),
        tasks={**base.tasks, "depth": TaskConfig(loader=loader)},
    )
