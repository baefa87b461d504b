"""The whole path in minutes on two CPU cores: a tiny routed ViT learns the synthetic world from scratch.

make demo
"""

from ufo_large.balancing import METHODS
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.transforms import TRANSFORMS
from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.trunk import Trunk
from ufo_large.routing import ROUTERS
from ufo_large.runs.config import RunConfig, TaskConfig
from ufo_large.runs.optimizer import OptimizerConfig
from ufo_large.runs.schedule import Schedule
from ufo_large.tasks import HEADS
from ufo_large.tracking import Tracker


def recipe() -> RunConfig:
    """Return the config of the demo."""
    trunk = Trunk.Config(
        name="vit_tiny_patch16_224",
        img_size=96,
        patch_size=8,
        embed_dim=96,
        depth=4,
        num_heads=3,
        checkpointing="full",
        router=ROUTERS["task"].Config(),
    )
    heads = {
        "classification": HEADS["classification"]["linear"].Config(),
        "detection": HEADS["detection"]["fcos"].Config(strides=(4, 8), num_convs=1),
        "segmentation": HEADS["segmentation"]["dense"].Config(strides=(4, 8), dice_weight=1.0),
    }
    tasks = {
        "classification": TaskConfig(
            loader=LoaderConfig(
                micro_batch=40,
                image_size=(64, 64),
                transform=TRANSFORMS["classification"].Config(scale=(0.7, 1.0), colour=0.1),
                workers=1,
            )
        ),
        "detection": TaskConfig(loader=LoaderConfig(micro_batch=2, image_size=(96, 144), workers=1)),
        "segmentation": TaskConfig(loader=LoaderConfig(micro_batch=3, image_size=(128, 192), workers=1)),
    }
    return RunConfig(
        name="demo",
        steps=260,
        model=MultitaskModel.Config(trunk=trunk, heads=heads, pyramid_width=64),
        tasks=tasks,
        optimizer=OptimizerConfig(learning_rate=2e-3, weight_decay=0.05),
        schedule=Schedule(warmup_steps=20),
        balancer=METHODS["tbgn"].Config(),
        tracking=Tracker.Config(wandb="offline"),
        save_every=130,
        keep_checkpoints=1,
        ds="zero3_fp32",
    )
