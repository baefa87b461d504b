"""What a trained model of this project gives to one that has more tasks."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def is_trained(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are a whole model's, as a run's `weights/` holds them, and not a dense ViT's."""
    return any(name.startswith("trunk.vit.") for name in tensors)


def new_tasks(tensors: Mapping[str, Tensor], tasks: tuple[str, ...], path: str | Path) -> tuple[str, ...]:
    """Return the tasks that a trained model lacks. ValueError where it has tasks besides `tasks`."""
    held = {name.split(".")[1] for name in tensors if name.startswith("heads.")}
    gone = ", ".join(sorted(held.difference(tasks)))
    if gone:
        raise ValueError(
            f"{path} was trained for {gone} too, which this data has no train split of; give shards of all "
            "its tasks and the new ones, or cut one task out with launchers/export.py --to timm"
        )
    return tuple(task for task in tasks if task not in held)


def new_expert(tensors: Mapping[str, Tensor], place: str, rest: str) -> Tensor:
    """Return what parameter `rest` of a new task's expert starts from, as the bank's `add_task` does it.

    The shared module of the bank at `place`, where it has one, else the mean of the other experts.
    """
    if f"{place}.shared.{rest}" in tensors:
        return tensors[f"{place}.shared.{rest}"]
    tasks = {n.removeprefix(f"{place}.experts.").split(".")[0] for n in tensors if n.startswith(f"{place}.")}
    return torch.stack([tensors[f"{place}.experts.{task}.{rest}"] for task in sorted(tasks)]).mean(0)
