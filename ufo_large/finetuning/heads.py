"""Heads for a trunk that does not take the recipe's."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ufo_large.config import apply_overrides
from ufo_large.finetuning.start import FROM_SCRATCH
from ufo_large.models.multitask import build_head
from ufo_large.recipes import load_recipe
from ufo_large.runs.config import RunConfig
from ufo_large.structures import TaskInfo


def with_heads_that_fit(
    config: RunConfig, assignments: Sequence[str], tasks: Sequence[TaskInfo]
) -> tuple[RunConfig, list[str]]:
    """Return the config with `--set` assignments, and what to say of heads that were replaced.

    A head whose queries the trunk cannot take gives way to that of the recipe which starts from scratch, at
    the rate of heads in general. One that an assignment asks for stays, for the model to refuse.
    """
    refused = _refused(apply_overrides(config, assignments), tasks)
    plain = load_recipe(FROM_SCRATCH).model
    replaced = [t for t in tasks if t.name in refused]
    heads = config.model.heads | {t.name: plain.head_of(t) for t in replaced}
    rates = config.optimizer.head_rates | {t.name: config.optimizer.head_rate for t in replaced}
    config = replace(
        config,
        model=replace(config.model, heads=heads),
        optimizer=replace(config.optimizer, head_rates=rates),
    )
    told = [f"{name}: another head than the recipe's ({reason})" for name, reason in refused.items()]
    return apply_overrides(config, assignments), told


def _refused(config: RunConfig, tasks: Sequence[TaskInfo]) -> dict[str, str]:
    """Return why the trunk's blocks cannot take the queries of a task's head, by task."""
    reasons = {}
    with torch.device("meta"):
        trunk = config.model.trunk.build(tuple(t.name for t in tasks))
        for task in tasks:
            head, _ = build_head(config.model, task, trunk.width, trunk.stride)
            if head.query_blocks:
                try:
                    trunk.allow_queries(head.query_blocks)
                except ValueError as error:
                    reasons[task.name] = str(error)
    return reasons
