"""What every balancing method would have done with the gradients of a run, read from its log.

All methods turn losses or the Gram matrix of the task gradients into one weight a task, and the log has both.
So each can be shown every step again, and their combined gradients compared, without training.

Legend: S steps, M tasks of a step, N methods.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from ufo_large.balancing import METHODS, Signals
from ufo_large.balancing.gram import norms_and_cosines, update_shares

SUM = "fixed"
"""The method of the plain sum: all weights 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """`cosines_NN`: of the combined gradients of two methods, mean over the steps. `methods`: those of N.

    `pairs`: two tasks -> mean and standard deviation of their gradients' cosine over the steps.
    `shares`: method -> task -> its part of the combined gradient's squared norm, mean over its steps.
    `groups`: methods of which all pairs have at least the cosine asked for; similar ones are neighbours.
    `refused`: method -> why it cannot be used on this run.
    """

    steps: int
    tasks: tuple[str, ...]
    pairs: Mapping[tuple[str, str], tuple[float, float]]
    methods: tuple[str, ...]
    cosines_NN: np.ndarray
    shares: Mapping[str, Mapping[str, float]]
    groups: tuple[tuple[str, ...], ...]
    refused: Mapping[str, str]


def signals_of(log: Sequence[Mapping[str, float]]) -> list[Signals]:
    """Return what the balancer was told in each logged step of two tasks or more.

    `log`: as `read_metrics` returns it. Raises ValueError where there is none.
    """
    numbers = [{k: v for k, v in row.items() if isinstance(v, int | float)} for row in log]
    tasks = _tasks(numbers)
    found = [found for row in numbers if (found := _signals(row, tasks, len(log))) is not None]
    if not found:
        raise ValueError(
            "no step has the losses, gradient norms and cosines of two tasks or more; give a run of several "
            "tasks that has logged a step"
        )
    return found


def replay(steps: Sequence[Signals], names: Sequence[str] = tuple(METHODS), alike: float = 0.99) -> Replayed:
    """Show the steps to each method in turn, with its default settings; ValueError for an unknown name."""
    tasks = tuple(dict.fromkeys(task for signals in steps for task in signals.tasks))
    weights, refused = {}, {}
    for name in dict.fromkeys((SUM, *names)):
        try:
            balancer = METHODS[name].Config().build(tasks, seed=0)
            weights[name] = [balancer(signals) for signals in steps]
        except ValueError as error:
            refused[name] = str(error)
    cosines_NN = np.mean([_cosines(s, [w[i] for w in weights.values()]) for i, s in enumerate(steps)], axis=0)
    methods, groups, order = tuple(weights), [], [0]
    if len(methods) > 1:
        tree = linkage(squareform(np.maximum(0, 1 - cosines_NN), checks=False), "complete")
        of_method, order = fcluster(tree, 1 - alike, "distance"), leaves_list(tree).tolist()
        for number in dict.fromkeys(of_method[order]):
            groups.append(tuple(methods[i] for i in order if of_method[i] == number))
    return Replayed(
        steps=len(steps),
        tasks=tasks,
        pairs=_pairs(steps),
        methods=tuple(methods[i] for i in order),
        cosines_NN=cosines_NN[np.ix_(order, order)],
        shares={name: _shares(steps, found) for name, found in weights.items()},
        groups=tuple(groups) or (methods,),
        refused=refused,
    )


def _tasks(log: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    named = (key.split("/") for row in log for key in row if key.startswith("balance/"))
    measured = (p[1] for p in named if len(p) == 3 and p[2] == "grad_norm" and p[1].isprintable())
    return tuple(dict.fromkeys(measured))


def _signals(row: Mapping[str, float], tasks: Sequence[str], total_steps: int) -> Signals | None:
    present = tuple(task for task in tasks if f"balance/{task}/grad_norm" in row)
    losses_M = torch.tensor([row.get(f"{t}/total", math.nan) for t in present], dtype=torch.float64)
    norms_M = torch.tensor([row[f"balance/{t}/grad_norm"] for t in present], dtype=torch.float64)
    cosines_MM = torch.eye(len(present), dtype=torch.float64)
    for i, first in enumerate(present):
        for j, second in enumerate(present[:i]):
            pairs = f"balance/cosine/{second}-{first}", f"balance/cosine/{first}-{second}"
            cosines_MM[i, j] = cosines_MM[j, i] = next((row[p] for p in pairs if p in row), math.nan)
    gram_MM = cosines_MM * norms_M * norms_M[:, None]
    if len(present) < 2 or not (gram_MM.isfinite().all() and losses_M.isfinite().all()):
        return None
    return Signals(
        tasks=present,
        losses_M=losses_M,
        gram_MM=gram_MM,
        step=int(row["step"]) - 1,
        total_steps=total_steps,
    )


def _cosines(signals: Signals, weights: Sequence[Tensor]) -> np.ndarray:
    """Return the cosines [N, N] of the gradients that N methods combine in one step."""
    weights_NM = torch.stack(list(weights))
    return norms_and_cosines(weights_NM @ signals.gram_MM @ weights_NM.T)[1].numpy()


def _pairs(steps: Sequence[Signals]) -> dict[tuple[str, str], tuple[float, float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for signals in steps:
        cosines_MM = norms_and_cosines(signals.gram_MM)[1].tolist()
        for (i, first), (j, second) in combinations(enumerate(signals.tasks), 2):
            found.setdefault((first, second), []).append(cosines_MM[i][j])
    return {pair: (statistics.fmean(values), statistics.pstdev(values)) for pair, values in found.items()}


def _shares(steps: Sequence[Signals], weights: Sequence[Tensor]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for signals, weights_M in zip(steps, weights, strict=True):
        shares = update_shares(signals.gram_MM, weights_M).tolist()
        for task, share in zip(signals.tasks, shares, strict=True):
            found.setdefault(task, []).append(share)
    return {task: statistics.fmean(shares) for task, shares in found.items()}
