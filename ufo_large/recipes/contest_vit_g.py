"""ViT-g, an expert a task in each block of its later half, from public weights: 1.7 B parameters on 8 GPUs.

    sh launchers/train.sh --recipe contest_vit_g        # shards of datasets/, then
    deepspeed --num_gpus 8 launchers/train.py --data SHARDS --workdir RUN
    sh launchers/test.sh                                # scores and RUN/submission.json

For the data of CVPR 2023's foundation-model challenge, track 1: 196 kinds of cars, 45 kinds of signs in
pictures of 2,048 pixels, 19 classes of streets. To beat: mean 88.13, Top-1 95.95, mAP50 97.3, mIoU 71.13 (the
winner of board A: InternImage-XL, 335 M parameters, 5.85 s a step on 8 GPUs of 80 GB).

Nobody has trained it to the end yet, so no score stands here. It starts from published choices: layer-wise
decay 0.9 and drop path for a giant ViT (EVA, arXiv:2211.07636), Mask2Former and DINO-like heads, ArcFace for
196 kinds of cars, signs seen at their stored resolution in crops of 1,022 pixels and in 2 x 2 tiles when
tested. What a rank holds and sends, with every block routed, is in
benchmarks/results/zero3_full_size_cpu_202611.md.

Planned, not measured, and without waiting for data: 31 GiB per rank of 8 (24 live), 2.2 s per step on
H200, 12.5 hours. On 8 A100 of 40 GB it fits as well.

    python launchers/plan.py --recipe contest_vit_g --gpus 8 --gpu h200
"""

from ufo_large.balancing import METHODS
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.tiles import Tiling
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
    """Return the config of the run; a step sees 8 cars, 2 pictures with signs and 2 streets on each rank."""
    trunk = Trunk.Config(
        name="vit_giant_patch14_clip_224",
        drop_path=0.3,
        checkpointing="selective",
        router=ROUTERS["task"].Config(blocks=tuple(range(20, 40))),
    )
    heads = {
        "classification": HEADS["classification"]["arcface"].Config(),
        "detection": HEADS["detection"]["detr"].Config(strides=(8, 16, 32)),
        "segmentation": HEADS["segmentation"]["mask2former"].Config(),
    }
    cars = LoaderConfig(
        micro_batch=8,
        image_size=(448, 448),
        transform=TRANSFORMS["classification"].Config(rand_augment=9, erasing=0.25),
    )
    signs = LoaderConfig(
        micro_batch=2,
        image_size=(1022, 1022),
        transform=TRANSFORMS["detection"].Config(scale=(1.0, 3.0), focus=0.8, copy_paste=2),
        tiles=Tiling(rows=2, columns=2),
    )
    streets = LoaderConfig(
        micro_batch=2, image_size=(574, 1022), transform=TRANSFORMS["segmentation"].Config()
    )
    return RunConfig(
        name="contest_vit_g",
        steps=20_000,
        model=MultitaskModel.Config(trunk=trunk, heads=heads),
        tasks={
            "classification": TaskConfig(loader=cars),
            "detection": TaskConfig(loader=signs),
            "segmentation": TaskConfig(loader=streets),
        },
        optimizer=OptimizerConfig(learning_rate=1e-4, betas=(0.9, 0.98), layer_decay=0.9),
        pretrained="timm/vit_giant_patch14_clip_224.laion2b",
        schedule=Schedule(warmup_steps=500),
        balancer=METHODS["tbgn"].Config(),
        tracking=Tracker.Config(wandb="offline"),
        ema=ShardedEma.Config(),
        log_every=10,
        evaluate_every=2000,
        save_every=1000,
        ds="zero3_bf16",
    )
