"""Small models and batches of every kind of task, for tests of whatever uses a model."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from ufo_large.distributed.engine import Engine
from ufo_large.distributed.task_gradients import Measurement, TaskGradients
from ufo_large.models import MultitaskModel, Trunk
from ufo_large.planning.batches import random_batch
from ufo_large.routing import PARTS, ROUTERS, Router
from ufo_large.structures import TaskBatch, TaskInfo
from ufo_large.tasks import HEADS


def task_info(name: str, kind: str, num_classes: int) -> TaskInfo:
    """Return a task whose classes are called c0, c1, ..."""
    names = tuple(f"c{i}" for i in range(num_classes))
    return TaskInfo(name=name, kind=kind, class_names=names, class_ids=tuple(range(num_classes)))


TINY_TASKS = (
    task_info("cls", "classification", 5),
    task_info("dec", "detection", 3),
    task_info("seg", "segmentation", 4),
)
TINY_INFOS = {info.kind: info for info in (*TINY_TASKS, task_info("dep", "depth", 0))}
"""One task of every kind."""


ROUTED: dict[str, Router.Config] = {
    **{name: router.Config() for name, router in ROUTERS.items()},
    "task, all parts": ROUTERS["task"].Config(parts=PARTS),
    "learned, all parts": ROUTERS["learned"].Config(parts=PARTS),
}
"""Every scheme as it comes, and with experts on attention and norms too."""


def tiny_trunk(router: str | Router.Config = "task", **changes: Any) -> Trunk.Config:
    """Return a trunk of 4 blocks, width 48, patches of 8, positions for 32 x 32 pixels; never compiled."""
    shape = {"patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3, "img_size": 32, "compile": False}
    chosen = ROUTED[router] if isinstance(router, str) else router
    return Trunk.Config(**{"name": "vit_tiny_patch16_224", "router": chosen, **shape, **changes})


def tiny_model(router: str | Router.Config = "task", **trunk: Any) -> MultitaskModel.Config:
    """Return a model for TINY_TASKS: linear, FCOS and dense heads."""
    heads = {
        "classification": HEADS["classification"]["linear"].Config(),
        "detection": HEADS["detection"]["fcos"].Config(strides=(4, 8)),
        "segmentation": HEADS["segmentation"]["dense"].Config(strides=(4, 8)),
    }
    return MultitaskModel.Config(trunk=tiny_trunk(router, **trunk), heads=heads, pyramid_width=16)


def tiny_model_with(kind: str, head: str) -> MultitaskModel.Config:
    """Return the tiny model with that head for that kind of task."""
    strides = {"fcos": (4, 8), "dense": (4, 8), "dense_depth": (4, 8), "mask2former": (4, 8, 16)}
    options = {"strides": strides[head]} if head in strides else {}
    base = tiny_model("task")
    return dataclasses.replace(base, heads={**base.heads, kind: HEADS[kind][head].Config(**options)})


def tiny_batch(info: TaskInfo, num_images: int = 2, size: int = 32, seed: int = 0) -> TaskBatch:
    """Return random square images with random targets of the task's kind."""
    return random_batch(info, num_images, (size, size), seed)


def step_of_all(engine: Engine, rates: list[float], weights: Sequence[float], seed: int = 0) -> Measurement:
    """Take one step of TINY_TASKS, a tiny batch each; return what their gradients measured."""
    gradients = TaskGradients(engine.gradients, len(TINY_TASKS))
    gradients.begin_step()
    for info in TINY_TASKS:
        gradients.begin_task(info.name)
        losses = engine(tiny_batch(info, seed=seed))
        engine.backward(torch.stack(list(losses.values())).sum())
        gradients.after_backward()
        gradients.end_task()
    measured = gradients.measure(torch.zeros(1, dtype=torch.float64))
    gradients.combine(torch.tensor(weights), scale_private=False)
    engine.step(rates)
    return measured
