"""The random order in which a task's gradient meets the others'."""

import torch


def projection_orders(
    run_tasks: tuple[str, ...], present: tuple[str, ...], generator: torch.Generator
) -> list[list[int]]:
    """Return for each present task the indices of the other present ones, shuffled independently.

    Drawn for all pairs of the run's tasks by name, so that neither an absent task nor the order of the
    names changes the order of the others.
    """
    names = sorted(run_tasks)
    rank = {name: i for i, name in enumerate(names)}
    keys = torch.rand(len(names), len(names), generator=generator).tolist()
    return [
        sorted(
            (j for j in range(len(present)) if j != i),
            key=lambda j, row=keys[rank[task]]: row[rank[present[j]]],
        )
        for i, task in enumerate(present)
    ]
