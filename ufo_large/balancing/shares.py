"""The share of the update that a user wants each task to have."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ufo_large.config import did_you_mean


def check_shares(shares: Mapping[str, float]) -> None:
    """Raise ValueError where a share is not a finite number above 0."""
    for task, share in shares.items():
        if not 0 < share < float("inf"):
            raise ValueError(f"share of task {task!r} is {share}: must be above 0 and finite")


def check_share_names(shares: Mapping[str, float], tasks: tuple[str, ...]) -> None:
    """Raise ValueError where a share names a task that the run does not have."""
    for task in shares:
        if task not in tasks:
            raise ValueError(f"share for an unknown task {task!r}.{did_you_mean(task, tasks)}")


def relative_shares(shares: Mapping[str, float], tasks: tuple[str, ...]) -> Tensor:
    """Return the shares of the tasks present, [M], scaled to a mean of 1; a task not named counts 1."""
    values_M = torch.tensor([float(shares.get(t, 1.0)) for t in tasks], dtype=torch.float64)
    return values_M / values_M.mean()
