"""A trained model in one process: from a run's consolidated weights, or from one of its checkpoints."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ufo_large.distributed.checkpoint import complete_checkpoints, load_weights
from ufo_large.distributed.saved_weights import read_saved_weights
from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.weights import fill
from ufo_large.runs.folder import RunFolder, SavedRun
from ufo_large.structures import TaskInfo


def load_model(
    config: MultitaskModel.Config, tasks: tuple[TaskInfo, ...], weights: Path, device: torch.device
) -> MultitaskModel:
    """Build the model and fill it with consolidated weights; ValueError lists whatever does not fit."""
    tensors: dict[str, Tensor] = {}
    load_weights(weights, tensors.__setitem__)
    return filled(config, tasks, tensors, weights, device)


def filled(
    config: MultitaskModel.Config,
    tasks: tuple[TaskInfo, ...],
    tensors: Mapping[str, Tensor],
    place: Path,
    device: torch.device,
) -> MultitaskModel:
    """Build the model and fill it with the tensors that `place` held; ValueError where they do not fit."""
    model = config.build(tasks)
    try:
        fill(model, tensors.items())
    except ValueError as error:
        raise ValueError(f"{place} belongs to another model than config.json beside it: {error}") from None
    return model.to(device)


def find_checkpoint(run: RunFolder, chosen: str | Path) -> Path:
    """Return a run's whole checkpoint by its name or path, `last` for the newest. ValueError lists them."""
    found = complete_checkpoints(run.checkpoints)
    if chosen == "last" and found:
        return found[-1]
    for checkpoint in found:
        if chosen == checkpoint.name or Path(chosen).resolve() == checkpoint.resolve():
            return checkpoint
    there = ", ".join(["last", *(checkpoint.name for checkpoint in found)]) if found else "none"
    raise ValueError(f"checkpoint {chosen}: not in {run.checkpoints}, where there is: {there}")


def load_run(
    run: RunFolder, saved: SavedRun, device: torch.device, checkpoint: Path | None = None
) -> MultitaskModel:
    """Return a run's model with its final weights, or those of a checkpoint."""
    if checkpoint is not None:
        return load_from_checkpoint(saved.config.model, saved.tasks, checkpoint, device)
    return load_model(saved.config.model, saved.tasks, run.weights, device)


def load_from_checkpoint(
    config: MultitaskModel.Config, tasks: tuple[TaskInfo, ...], checkpoint: Path, device: torch.device
) -> MultitaskModel:
    """Build the model and fill it with the weights of a checkpoint; see `SavedWeights`."""
    model, saved = config.build(tasks), read_saved_weights(checkpoint)
    if unknown := sorted(saved.names - dict(model.named_parameters()).keys()):
        raise ValueError(
            f"{checkpoint} belongs to another model than the run's config.json: that has no {unknown[0]}"
        )
    saved.copy_into(model)
    return model.to(device)
