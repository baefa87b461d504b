"""Each task its own expert in the routed blocks, the shared MLP elsewhere.

Legend: B images, L tokens, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ufo_large.routing.base import ExpertBank, Route, Router, routed_blocks
from ufo_large.routing.clone import clone_module
from ufo_large.structures import Role, set_role


class TaskRouter(Router):
    """Route by the task's name alone: nothing to learn, nothing to decide."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Router.Config):
        """`blocks` None: every second block of the later half."""

        def build(self, tasks: tuple[str, ...], route: Route, depth: int) -> "TaskRouter":
            return TaskRouter(self, routed_blocks(self.blocks, depth), tasks, route)

    def make_bank(self, block: int, mlp: nn.Module) -> "TaskBank":
        return TaskBank(block, self.route, self.tasks, mlp)


class TaskBank(ExpertBank):
    """One expert a task. The first task takes over the MLP's own parameters, the others copies."""

    def __init__(self, block: int, route: Route, tasks: tuple[str, ...], mlp: nn.Module):
        super().__init__(block, route)
        self.experts = nn.ModuleDict()
        for index, task in enumerate(tasks):
            expert = mlp if index == 0 else clone_module(mlp)
            self.experts[task] = set_role(expert, Role("expert", task))

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.experts[self.route.task](x_BLD)

    def path(self, task: str) -> nn.Module:
        return self.experts[task]

    def add_task(self, task: str) -> None:
        """The new expert starts as the mean of the others, which grew from one MLP."""
        others = list(self.experts.values())
        expert = clone_module(others[0])
        with torch.no_grad():
            for target, *sources in zip(expert.parameters(), *(e.parameters() for e in others), strict=True):
                target.copy_(torch.stack(sources).mean(0))
        self.experts[task] = set_role(expert, Role("expert", task))
