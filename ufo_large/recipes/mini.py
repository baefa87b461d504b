"""A small routed ViT from scratch on a few hundred real photographs a task, 25 minutes on two CPU cores.

    python data_sharding/make_shards.py --data DIR --out SHARDS
    deepspeed --num_gpus 2 launchers/train.py --recipe mini --data SHARDS --workdir RUN
    python eval/run_all.py --workdir RUN --data SHARDS --protocol standard

Measured with seed 0 on 720 cars of 30 classes, 469 pictures with 4 kinds of signs and 367 streets (11 of the
19 classes occur), protocol standard, on the test split, after 25 minutes on two cores that were shared with
other programs:

                top-1 %   mAP50 %   mIoU %
    this recipe    43.3      56.6     36.5
    plain sum      40.3      52.2     36.1    the same with balancer=fixed
    baselines      23.9       0.2     17.0    HOG + ridge; k-means prior boxes; most frequent class a place
    plainer run    11.1      17.9     21.2    1,050 steps

The plainer run was this recipe edited once: timm's patch embedding, a linear head, 6 blocks with 2 heads,
64 cars a micro-batch, rate 2e-3, no averaged weights, the dense tasks in every second step. Which of these
changes did how much has not been measured one by one.
"""

from ufo_large.balancing import METHODS
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.transforms import TRANSFORMS
from ufo_large.distributed.ema import ShardedEma
from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.trunk import Trunk
from ufo_large.routing import ROUTERS
from ufo_large.runs.config import RunConfig, TaskConfig
from ufo_large.runs.optimizer import OptimizerConfig
from ufo_large.runs.schedule import Schedule
from ufo_large.tasks import HEADS
from ufo_large.tracking import Tracker


def recipe() -> RunConfig:
    """Return the config of the run on small real data."""
    trunk = Trunk.Config(
        name="vit_tiny_patch16_224",
        img_size=96,
        patch_size=8,
        embed_dim=128,
        depth=4,
        num_heads=4,
        stem="gradients",
        drop_path=0.05,
        router=ROUTERS["task"].Config(),
    )
    heads = {
        "classification": HEADS["classification"]["grid"].Config(rows=4, columns=6, dropout=0.2),
        "detection": HEADS["detection"]["fcos"].Config(strides=(8, 16), num_convs=1),
        "segmentation": HEADS["segmentation"]["dense"].Config(strides=(4, 8), dice_weight=0.5),
    }
    tasks = {
        "classification": TaskConfig(
            loader=LoaderConfig(
                micro_batch=40,
                image_size=(64, 96),
                transform=TRANSFORMS["classification"].Config(scale=(0.5, 1.0), mixup=0.2),
                workers=1,
            )
        ),
        "detection": TaskConfig(
            loader=LoaderConfig(
                micro_batch=4,
                image_size=(144, 192),
                transform=TRANSFORMS["detection"].Config(),
                workers=1,
            )
        ),
        "segmentation": TaskConfig(
            loader=LoaderConfig(
                micro_batch=3,
                image_size=(120, 160),
                transform=TRANSFORMS["segmentation"].Config(),
                workers=1,
            )
        ),
    }
    return RunConfig(
        name="mini",
        steps=1000,
        model=MultitaskModel.Config(trunk=trunk, heads=heads, pyramid_width=64),
        tasks=tasks,
        optimizer=OptimizerConfig(learning_rate=1.5e-3, weight_decay=0.05),
        schedule=Schedule(warmup_steps=20),
        balancer=METHODS["tbgn"].Config(),
        ema=ShardedEma.Config(decay=0.99),
        tracking=Tracker.Config(wandb="offline"),
        save_every=500,
        keep_checkpoints=1,
        ds="zero3_fp32",
    )
