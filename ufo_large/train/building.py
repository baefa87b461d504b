"""Make a model and its engine, sharded or not: what training and the benchmarks of training share."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ufo_large.distributed import comm, zero
from ufo_large.distributed.engine import Engine, PlainEngine
from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.weights import fill, initial_state
from ufo_large.structures import TaskInfo


def build_model(
    config: MultitaskModel.Config, tasks: tuple[TaskInfo, ...], ds: dict[str, Any] | None
) -> MultitaskModel:
    """Return the model without its weights, made sharded where `ds`, a complete config, asks for that."""
    with zero.sharded_construction(ds):
        model = config.build(tasks)
    model.trunk.restore_tables()
    return model


def give_initial_weights(
    model: MultitaskModel,
    seed: int,
    pretrained: str | Path | None = None,
    trained: Sequence[TaskInfo] = (),
) -> None:
    """Fill the model, sharded or not, with drawn or pretrained weights; arguments as for `initial_state`."""
    state = initial_state(model, seed, pretrained, trained)
    first = comm.agreed(lambda: next(state))  # what is wrong with a file is raised before the first value
    values = itertools.chain([first], state)
    fill(model, values, whole=lambda parameters: zero.gathered(parameters, modify=True))


def build_engine(
    model: MultitaskModel,
    optimizer: torch.optim.Optimizer,
    ds: dict[str, Any] | None,
    device: torch.device,
    clip_norm: float | None,
) -> Engine:
    """Return the engine; `ds` is complete, or None for one process without DeepSpeed."""
    if ds is None:
        return PlainEngine(model, optimizer, device, clip_norm)
    return zero.ZeroEngine(model, optimizer, ds, model.units())
