"""Learn, for every task and expert bank, whether the shared module or the task's own is better.

Legend: B images, L tokens, D width.
"""

import math
import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ufo_large.routing.base import ExpertBank, Route, Router, routed_blocks
from ufo_large.routing.clone import clone_module
from ufo_large.structures import Role, set_learning_rate, set_role

SHARED_PATH, OWN_PATH = 0, 1


class LearnedRouter(Router):
    """A discrete choice a task and bank (VIMER-UFO, arXiv:2207.10341) by straight-through Gumbel softmax.

    While undecided, a training step draws one path (arXiv:1611.01144, section 2.2) and computes both, so
    that the choice gets a gradient. From `decide_at` on, and always when predicting, the likelier path alone
    is computed. A choice once fixed stays so, in a longer run and in one that starts from these weights.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Router.Config):
        """See `Router.Config`; attention, MLP and norms of a block choose each for themselves.

        `decide_at`: share of training after which the choice is fixed. The temperature falls geometrically
        from `start_temperature` to `end_temperature` until then. `seed` decides the draws of all ranks.
        `choice_rate`: learning rate of the choices, AdaShare's own (arXiv:1911.12423); at a pretrained
        trunk's, two logits would come nowhere until they are fixed.
        """

        decide_at: float = 0.5
        start_temperature: float = 2.0
        end_temperature: float = 0.5
        seed: int = 0
        choice_rate: float = 0.01

        def __post_init__(self):
            Router.Config.__post_init__(self)
            if not 0.0 < self.decide_at <= 1.0:
                raise ValueError(f"router.decide_at={self.decide_at}: must be above 0 and at most 1")
            if min(self.start_temperature, self.end_temperature) <= 0:
                raise ValueError("router.start_temperature and router.end_temperature: must be positive")
            if not 0 < self.choice_rate < math.inf:
                raise ValueError(f"router.choice_rate={self.choice_rate}: must be positive")

        def build(self, tasks: tuple[str, ...], route: Route, depth: int) -> "LearnedRouter":
            return LearnedRouter(self, routed_blocks(self.blocks, depth), tasks, route)

    def bank(self, place: str, module: nn.Module) -> "LearnedBank":
        return LearnedBank(place, self.route, self.config, self.tasks, module)


class LearnedBank(ExpertBank):
    """The shared module, one expert a task, and each task's choice between the two."""

    def __init__(
        self,
        place: str,
        route: Route,
        config: LearnedRouter.Config,
        tasks: tuple[str, ...],
        module: nn.Module,
    ):
        super().__init__(place, route)
        self.config = config
        self._has_values = True
        self.shared = module
        self.experts = nn.ModuleDict()
        self.choices = nn.ModuleDict()
        for task in tasks:
            self.add_task(task)

    def add_task(self, task: str) -> None:
        """The new expert starts as a copy of the shared module, undecided."""
        role = Role("expert", task)
        self.experts[task] = set_role(clone_module(self.shared), role)
        self.choices[task] = set_learning_rate(set_role(Choice(), role), self.config.choice_rate)

    def forward(self, x_BLD: Tensor, **options: Any) -> Tensor:
        task = self.route.task
        choice, expert = self.choices[task], self.experts[task]
        if not self.training or self.route.progress >= self.config.decide_at or choice.is_decided():
            path = choice.decide() if self.training else choice.likelier()
            self._observe(torch.eye(2, device=x_BLD.device)[path])
            return (expert if path == OWN_PATH else self.shared)(x_BLD, **options)
        shares_2 = choice(self._noise().to(x_BLD.device, non_blocking=True), self._temperature())
        drawn_2 = F.one_hot(shares_2.argmax(), 2)
        weights_2 = (drawn_2 + (shares_2 - shares_2.detach())).to(x_BLD.dtype)
        self._observe(shares_2)
        shared_BLD, own_BLD = self.shared(x_BLD, **options), expert(x_BLD, **options)
        return weights_2[SHARED_PATH] * shared_BLD + weights_2[OWN_PATH] * own_BLD

    def path(self, task: str) -> nn.Module:
        return self.experts[task] if self.choices[task].likelier() == OWN_PATH else self.shared

    def paths_of(self, task: str) -> list[nn.Module]:
        """One path, as when it is decided; the second one, computed until then, serves the choice."""
        return [self.experts[task]]

    def active(self, task: str) -> int:
        """Return the size of one path; both are alike."""
        return sum(p.numel() for p in self.shared.parameters())

    def fresh(self, name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.zeros(shape)

    def without_values(self) -> None:
        """Take all choices as open and their noise as none, as where tensors have no values."""
        self._has_values = False
        for choice in self.choices.values():
            choice.assume_undecided()

    def _noise(self) -> Tensor:
        if not self._has_values:
            return torch.zeros(2)
        draw = f"{self.config.seed} {self.route.draws} {self.place}"
        generator = torch.Generator().manual_seed(zlib.crc32(draw.encode()))
        return -torch.empty(2).exponential_(generator=generator).log()

    def _temperature(self) -> float:
        start, end = self.config.start_temperature, self.config.end_temperature
        return start * math.exp(math.log(end / start) * self.route.progress / self.config.decide_at)

    def _observe(self, shares_2: Tensor) -> None:
        self.route.observe("own_path", shares_2[OWN_PATH])
        self.route.observe_path(self.place, "shared", shares_2[SHARED_PATH])
        self.route.observe_path(self.place, "own", shares_2[OWN_PATH])
        self.route.observe("entropy", torch.special.entr(shares_2).sum())


class Choice(nn.Module):
    """One task's preference in one bank; two logits, and the decision once it is made (-1 before)."""

    def __init__(self):
        super().__init__()
        self.logits_2 = nn.Parameter(torch.zeros(2))
        self.register_buffer("decided", torch.tensor(-1, dtype=torch.int8))
        self._known = (-1, -1)

    def forward(self, noise_2: Tensor, temperature: float) -> Tensor:
        """Return the shares of both paths, float32, given Gumbel noise."""
        return ((self.logits_2.float() + noise_2) / temperature).softmax(0)

    def assume_undecided(self) -> None:
        """Take it as undecided without reading the buffer."""
        self._known = (self.decided._version, -1)

    def is_decided(self) -> bool:
        return self._decided() >= 0

    def likelier(self) -> int:
        """Return the path decided on, else the likelier one now."""
        if self.is_decided():
            return self._decided()
        with torch.no_grad():
            noise_2 = torch.zeros(2, device=self.logits_2.device)
            return int(self(noise_2, 1.0).argmax())

    def decide(self) -> int:
        """Return the path and keep it from now on."""
        if not self.is_decided():
            self.decided.fill_(self.likelier())
        return self._decided()

    def _decided(self) -> int:
        version = self.decided._version  # read the device once a change, not once a step
        if self._known[0] != version:
            self._known = (version, int(self.decided))
        return self._known[1]
