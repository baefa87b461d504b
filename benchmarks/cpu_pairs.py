"""The pairs of cpu_ratios.py: what the product does, and the same work as a user would write it."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import workload
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ufo_large.balancing import METHODS
from ufo_large.distributed import zero
from ufo_large.metrics.average_precision import FoundBoxes, MeanAveragePrecision, TrueBoxes
from ufo_large.metrics.iou import MeanIoU
from ufo_large.models import MultitaskModel, Trunk
from ufo_large.runs.optimizer import OptimizerConfig
from ufo_large.structures import TaskBatch
from ufo_large.testing.models import tiny_batch
from ufo_large.train.steps import Feed, StepRunner

Pair = tuple[Callable[[], Any], Callable[[], Any]]
RATE = 1e-4
SIZES = {"cls": (8, 112), "dec": (4, 168), "seg": (2, 168)}
"""Task: images of a step, and their side in pixels."""
TOY_SIZES = {"cls": (2, 28), "dec": (2, 56), "seg": (1, 56)}
TOY_SHAPE = {"img_size": 28, "embed_dim": 32, "depth": 2, "num_heads": 2}
CLASSES, MASK, IMAGES, BOXES = 19, (1024, 2048), 200, 50


def joint_step(toy: bool) -> Pair:
    """A step of three tasks in one process, their gradients normalised, beside a plain loop's sum."""
    batches = batches_of(toy)
    return product_step(toy, batches, None, "tbgn"), loop_step(model_of(toy, None), batches)


def bfloat16_step(toy: bool) -> Pair:
    """A step under ZeRO-3 in bfloat16 on one rank, beside a plain loop under bfloat16 autocast."""
    zero.init_distributed()
    batches, model = batches_of(toy), model_of(toy, None)
    loop = loop_step(model, batches)

    def rival() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loop()

    return product_step(toy, batches, "zero3_bf16", "tbgn"), rival


def zero3_beside_ddp(toy: bool) -> Pair:
    """A step under ZeRO-3 on each rank's own images, beside torch's DistributedDataParallel."""
    zero.init_distributed()
    batches = batches_of(toy)
    wrapped = DistributedDataParallel(model_of(toy, None), find_unused_parameters=True)
    return product_step(toy, batches, "zero3_fp32", "tbgn"), loop_step(wrapped, batches)


def fused_optimizer(toy: bool) -> Pair:
    """The recipe's AdamW, beside torch's default."""
    model = model_of(toy, None)
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-3)
    ours = OptimizerConfig(learning_rate=RATE).build(model)
    return ours.step, torch.optim.AdamW(parameters, lr=RATE).step


def mean_iou(toy: bool) -> Pair:
    """A mask of 1024 x 2048 pixels counted, beside numpy's bincount."""
    random = np.random.default_rng(0)
    truth, said = (random.integers(0, CLASSES, MASK, dtype=np.uint8) for _ in range(2))
    metric = MeanIoU([str(c) for c in range(CLASSES)])

    def by_hand() -> None:
        np.bincount(truth.ravel().astype(np.int64) * CLASSES + said.ravel(), minlength=CLASSES**2)

    return lambda: metric.update(said, truth), by_hand


def average_precision(toy: bool) -> Pair:
    """COCO's box AP of 200 images with 50 found boxes each, beside pycocotools."""
    random, count = np.random.default_rng(0), 4 if toy else IMAGES
    pictures = []
    for _ in range(count):
        boxes_G4 = np.concatenate([random.uniform(0, 400, (8, 2)), random.uniform(10, 200, (8, 2))], 1)
        near_N4 = boxes_G4[random.integers(0, 8, BOXES)] + random.normal(0, 10, (BOXES, 4))
        near_N4[:, 2:] = near_N4[:, 2:].clip(1)
        found = FoundBoxes(
            boxes_xywh_N4=near_N4, scores_N=random.random(BOXES), labels_N=random.integers(0, 4, BOXES)
        )
        pictures.append((found, TrueBoxes(boxes_xywh_G4=boxes_G4, labels_G=random.integers(0, 4, 8))))

    def ours() -> float:
        metric = MeanAveragePrecision([str(c) for c in range(4)])
        for number, (found, truth) in enumerate(pictures):
            metric.update(number, found, truth)
        return metric.compute()["map"]

    def theirs() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            return coco_ap(pictures)

    if abs(ours() - theirs()) > 1e-6:
        raise RuntimeError(f"AP differs: {ours()} and {theirs()}")
    return ours, theirs


def coco_ap(pictures: list[tuple[FoundBoxes, TrueBoxes]]) -> float:
    """Return AP at IoU 0.50:0.95 by pycocotools."""
    truth, entries = COCO(), []
    annotations = []
    for image, (found, true) in enumerate(pictures, 1):
        for box, label in zip(true.boxes_xywh_G4.tolist(), true.labels_G.tolist(), strict=True):
            shown = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "category_id": label + 1}
            annotations.append({"id": len(annotations) + 1, "image_id": image, **shown})
        rows = zip(
            found.boxes_xywh_N4.tolist(), found.scores_N.tolist(), found.labels_N.tolist(), strict=True
        )
        entries += [
            {"image_id": image, "bbox": box, "score": score, "category_id": label + 1}
            for box, score, label in rows
        ]
    images = [{"id": image} for image in range(1, len(pictures) + 1)]
    categories = [{"id": c} for c in range(1, 5)]
    truth.dataset = {"images": images, "annotations": annotations, "categories": categories}
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(entries), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


ALONE: dict[str, Callable[[bool], Pair]] = {
    "joint step / plain loop": joint_step,
    "fused AdamW / torch's default": fused_optimizer,
    "mIoU of 1024 x 2048 / numpy's bincount": mean_iou,
    "box AP of 200 images / pycocotools": average_precision,
}
TOGETHER: dict[str, Callable[[bool], Pair]] = {
    "two ranks: ZeRO-3 / DDP": zero3_beside_ddp,
    "two ranks, bfloat16: ZeRO-3 / plain loop each": bfloat16_step,
}
"""Cases that need a process group."""


def batches_of(toy: bool) -> list[TaskBatch]:
    sizes = TOY_SIZES if toy else SIZES
    return [tiny_batch(info, *sizes[info.name]) for info in workload.TASKS]


def model_of(toy: bool, ds: dict[str, Any] | None) -> MultitaskModel:
    """Return ViT-S/14 with a linear, an FCOS and a dense head; every task shares all of the trunk."""
    trunk = Trunk.Config(name="vit_small_patch14_dinov2", **(TOY_SHAPE if toy else {}))
    return workload.build_model(workload.model_config(trunk, pyramid_width=128), ds)


def product_step(toy: bool, batches: list[TaskBatch], ds: str | None, balancer: str) -> Callable[[], Any]:
    complete = None if ds is None else workload.read_ds(ds)
    engine = workload.build_engine(model_of(toy, complete), complete, torch.device("cpu"))
    feeds = {batch.task: Feed(loader=workload.Repeat(batch)) for batch in batches}
    runner = StepRunner(engine, feeds, METHODS[balancer].Config().build(tuple(feeds), 0), total_steps=1000)
    rates = workload.rates(engine, engine.module, RATE)
    return lambda: runner.run(1, rates)


def loop_step(model: nn.Module, batches: list[TaskBatch]) -> Callable[[], Any]:
    """Return what a hand-written loop does: a pass of each task, one clipped update."""
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.05, fused=True)

    def step() -> None:
        for batch in batches:
            is_last = batch is batches[-1] or not isinstance(model, DistributedDataParallel)
            with contextlib.nullcontext() if is_last else model.no_sync():
                torch.stack([loss.float() for loss in model(batch).values()]).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step
