"""Each task its own expert in the routed blocks, the shared modules elsewhere.

Legend: B images, L tokens, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ufo_large.routing.base import ExpertBank, Route, Router, routed_blocks
from ufo_large.routing.clone import clone_module
from ufo_large.structures import Role, set_role


class TaskRouter(Router):
    """Route by the task's name alone: nothing to learn, nothing to decide."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Router.Config):
        def build(self, tasks: tuple[str, ...], route: Route, depth: int) -> "TaskRouter":
            return TaskRouter(self, routed_blocks(self.blocks, depth), tasks, route)

    def bank(self, place: str, module: nn.Module) -> "TaskBank":
        return TaskBank(place, self.route, self.tasks, module)


class TaskBank(ExpertBank):
    """One expert a task. The first task takes over the module's own parameters, the others copies."""

    def __init__(self, place: str, route: Route, tasks: tuple[str, ...], module: nn.Module):
        super().__init__(place, route)
        self.experts = nn.ModuleDict()
        for index, task in enumerate(tasks):
            expert = module if index == 0 else clone_module(module)
            self.experts[task] = set_role(expert, Role("expert", task))

    def forward(self, x_BLD: Tensor, **options: Any) -> Tensor:
        return self.experts[self.route.task](x_BLD, **options)

    def path(self, task: str) -> nn.Module:
        return self.experts[task]

    def add_task(self, task: str) -> None:
        """The new expert starts as the mean of the others, which grew from one module."""
        others = list(self.experts.values())
        expert = clone_module(others[0])
        with torch.no_grad():
            for target, *sources in zip(expert.parameters(), *(e.parameters() for e in others), strict=True):
                target.copy_(torch.stack(sources).mean(0))
        self.experts[task] = set_role(expert, Role("expert", task))
