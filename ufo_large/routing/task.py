"""Each task, or each that is named, its own expert in the routed blocks, the shared modules elsewhere.

Legend: B images, L tokens, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ufo_large.config import did_you_mean, per_task
from ufo_large.routing.base import ExpertBank, Route, Router, routed_blocks
from ufo_large.routing.clone import clone_module
from ufo_large.structures import Role, set_role


class TaskRouter(Router):
    """Route by the task's name alone: nothing to learn, nothing to decide."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Router.Config):
        """See `Router.Config`. `tasks`: those with experts of their own, by name; the others share one.

        None: every task has its own. (): none has, as with `shared`; so a run goes on whose named tasks the
        new data lacks.
        """

        tasks: tuple[str, ...] | None = per_task(default=None)

        def build(self, tasks: tuple[str, ...], route: Route, depth: int) -> "TaskRouter":
            for name in self.tasks or ():
                if name not in tasks:
                    told = f"router.tasks names {name!r}, which is no task of this model"
                    raise ValueError(f"{told}.{did_you_mean(name, tasks)} With none each has its own experts")
            return TaskRouter(self, routed_blocks(self.blocks, depth), tasks, route)

    def bank(self, place: str, module: nn.Module) -> "TaskBank":
        own = [t for t in self.tasks if self.config.tasks is None or t in self.config.tasks]
        return TaskBank(place, self.route, own, module, is_shared=len(own) < len(self.tasks))


class TaskBank(ExpertBank):
    """One expert a task, and the module itself for tasks without.

    Where each has its own, the first task's takes over the module's parameters, the others are copies.
    """

    def __init__(self, place: str, route: Route, own: Sequence[str], module: nn.Module, is_shared: bool):
        super().__init__(place, route)
        self.shared = module if is_shared else None
        self.experts = nn.ModuleDict()
        for index, task in enumerate(own):
            expert = module if index == 0 and not is_shared else clone_module(module)
            self.experts[task] = set_role(expert, Role("expert", task))

    def forward(self, x_BLD: Tensor, **options: Any) -> Tensor:
        return self.path(self.route.task)(x_BLD, **options)

    def path(self, task: str) -> nn.Module:
        return self.experts[task] if self.shared is None or task in self.experts else self.shared

    def active(self, task: str) -> int:
        return sum(p.numel() for p in self.path(task).parameters())

    def add_task(self, task: str) -> None:
        """The new expert starts as the mean of the others, which grew from one module.

        Where tasks without an expert share one, the new task is one of them.
        """
        if self.shared is not None:
            return
        others = list(self.experts.values())
        expert = clone_module(others[0])
        with torch.no_grad():
            for target, *sources in zip(expert.parameters(), *(e.parameters() for e in others), strict=True):
                target.copy_(torch.stack(sources).mean(0))
        self.experts[task] = set_role(expert, Role("expert", task))
