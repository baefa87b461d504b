"""The shared MLP for all tasks, and beside it a narrow expert per task that adds to its output.

Legend: B images, L tokens, D width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ufo_large.routing.base import ExpertBank, Route, Router, routed_blocks
from ufo_large.routing.mlps import hidden_size, is_mlp, resized, side_by_side
from ufo_large.structures import Role, set_role


class ResidualRouter(Router):
    """Contain the shared model: its path learns from every task, an expert only adds.

    The always-on shared expert is DeepSeekMoE's (arXiv:2401.06066); narrow experts beside a path of all tasks
    are MLoRE's (arXiv:2403.17749), parts per task that start at zero MTLoRA's (arXiv:2403.20320). Theirs are
    low-rank matrices. Here the part is an MLP: it has features of its own, and the sum of the two MLPs is one
    dense MLP of both their hidden units.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Router.Config):
        """See `Router.Config`. `fraction`: an expert's hidden size, relative to the shared MLP's."""

        fraction: float = 0.25

        def __post_init__(self):
            Router.Config.__post_init__(self)
            if self.parts != ("mlp",):
                raise ValueError(
                    f"router.parts={self.parts}: this scheme adds hidden units, which MLPs alone have; use "
                    "parts=mlp, or the scheme task or learned"
                )
            if not 0.0 < self.fraction <= 1.0:
                raise ValueError(f"router.fraction={self.fraction}: must be above 0 and at most 1")

        def build(self, tasks: tuple[str, ...], route: Route, depth: int) -> "ResidualRouter":
            return ResidualRouter(self, routed_blocks(self.blocks, depth), tasks, route)

    def bank(self, place: str, module: nn.Module) -> "ResidualBank":
        if not is_mlp(module):
            raise ValueError(
                f"router=residual narrows timm's Mlp, GluMlp and SwiGLU, and {place} is a "
                f"{type(module).__name__}; use router=task or learned"
            )
        return ResidualBank(place, self.route, self.config, self.tasks, module)


class ResidualBank(ExpertBank):
    """The shared MLP and one narrow expert per task, whose output layer starts at zero."""

    def __init__(
        self,
        place: str,
        route: Route,
        config: ResidualRouter.Config,
        tasks: tuple[str, ...],
        mlp: nn.Module,
    ):
        super().__init__(place, route)
        self.shared = mlp
        self.experts = nn.ModuleDict()
        self.expert_size = max(1, round(config.fraction * hidden_size(mlp)))
        for task in tasks:
            self.add_task(task)

    def add_task(self, task: str) -> None:
        """The new expert has random features and adds nothing yet."""
        expert = resized(self.shared, self.expert_size)
        for name, parameter in expert.named_parameters():
            if _starts_at_zero(name):
                nn.init.zeros_(parameter)
        self.experts[task] = set_role(expert, Role("expert", task))

    def forward(self, x_BLD: Tensor) -> Tensor:
        shared_BLD, own_BLD = self.shared(x_BLD), self.experts[self.route.task](x_BLD)
        self._observe(shared_BLD.detach(), own_BLD.detach())
        return shared_BLD + own_BLD

    def path(self, task: str) -> nn.Module:
        try:
            return side_by_side(self.shared, self.experts[task])
        except ValueError as error:
            raise ValueError(
                f"task {task!r}, {self.place}: {error}; save the whole model, or train with task routing"
            ) from error

    def source_of(self, name: str) -> str | None:
        """Return the pretrained parameter of the shared MLP's; an expert starts from none."""
        return None if name.startswith("experts.") else super().source_of(name)

    def fresh(self, name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Return zero, one for a norm's scale, or what torch draws for the weights of a linear layer."""
        value = torch.zeros(shape)
        inner = name.split(".", 2)[2]
        if _starts_at_zero(inner):
            return value
        if value.ndim == 1:
            return nn.init.ones_(value)
        return nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=generator)

    def _observe(self, shared_BLD: Tensor, own_BLD: Tensor) -> None:
        lengths_2 = torch.stack([x.float().norm() for x in (own_BLD, shared_BLD)])
        self.route.observe("own_part", lengths_2[0] / lengths_2.sum().clamp(min=1e-30))


def _starts_at_zero(name: str) -> bool:
    return name.startswith("fc2.") or name.endswith(".bias")
