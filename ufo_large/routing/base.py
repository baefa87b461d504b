"""Which path through the expert banks of a block the tokens of a task take.

Legend: B images, L tokens, D width, E experts.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ufo_large.config import did_you_mean
from ufo_large.structures import role_of

Part = Literal["mlp", "attention", "norms"]
PARTS: tuple[Part, ...] = get_args(Part)
"""What of a block can become an expert bank; `norms` are its layer norms."""


@dataclass(slots=True)
class Route:
    """The task now running, shared by the trunk and all its banks.

    The trunk calls `begin` before its forward pass and `end` after it; a micro-step runs one task on all
    ranks, and the recomputation of a checkpointed block happens in the backward pass of the same
    micro-step, so it reads the same task and the same draw. `progress` is the share of training done, 0..1,
    for schemes that anneal; the trainer sets it. Banks leave auxiliary losses (weighted, summed over blocks)
    and statistics (averaged over blocks) here; both stay until the next forward pass.

    `draws` counts training forward passes: random choices are functions of (seed, draws, block), so every
    rank makes the same. `memory` holds running estimates of banks, made from this rank's own tokens.
    """

    task: str = ""
    progress: float = 0.0
    draws: int = 0
    losses: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)
    _pending: dict[str, Tensor] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _recording: bool = False

    def begin(self, task: str, training: bool) -> None:
        """Start a forward pass of `task`: forget the last one's losses, count a draw."""
        self.memory.update(self._pending)
        for kept in (self._pending, self.losses, self.statistics, self._counts):
            kept.clear()
        self.task = task
        self.draws += int(training)
        self._recording = True

    def end(self) -> None:
        """Stop listening: what a recomputation reports is a repetition."""
        self._recording = False

    def add_loss(self, name: str, loss: Tensor) -> None:
        """Add a weighted auxiliary loss; losses of one name add up over the blocks."""
        if self._recording:
            self.losses[name] = self.losses[name] + loss if name in self.losses else loss

    def observe(self, name: str, value: Tensor) -> None:
        """Report a scalar for the log; values of one name are averaged over the blocks."""
        if self._recording:
            count = self._counts.get(name, 0)
            before = self.statistics.get(name, torch.zeros_like(value))
            self.statistics[name] = before + (value.detach() - before) / (count + 1)
            self._counts[name] = count + 1

    def observe_path(self, place: str, expert: str, share: Tensor) -> None:
        """Report the share of the task's tokens that go to an expert of the bank at `place`."""
        self.observe(f"path/{place}/{expert}", share)

    def remember(self, name: str, value: Tensor) -> None:
        """Replace a running estimate from the next forward pass on (a recomputation still reads the old)."""
        if self._recording:
            self._pending[name] = value.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return what later routing depends on besides the parameters. It differs between ranks."""
        return {
            "draws": self.draws,
            "progress": self.progress,
            "memory": {k: v.cpu() for k, v in {**self.memory, **self._pending}.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.draws, self.progress = state["draws"], state["progress"]
        self.memory = dict(state["memory"])
        self._pending.clear()


class ExpertBank(nn.Module, ABC):
    """Stands where a block's MLP, attention or norm stood; holds the shared one and / or one expert a task.

    The module it replaces and what is like it live in `shared` and in `experts`, by name. They start equal to
    it, or add nothing to it, so that the trunk's output at step 0 is the pretrained one. Experts carry the
    role `expert` of their task, set here when they are made. `place`: the module's path in the ViT, as
    `blocks.3.mlp`. `splits_tokens`: whether an expert gets another number of tokens at each call.
    """

    splits_tokens = False

    def __init__(self, place: str, route: Route):
        super().__init__()
        self.place = place
        self.route = route

    @abstractmethod
    def forward(self, x_BLD: Tensor, **options: Any) -> Tensor:
        """Return the routed module's output, [B, L, D], for `self.route.task`.

        `options`: what else the block hands its attention (mask, rotary positions).
        """

    @abstractmethod
    def path(self, task: str) -> nn.Module:
        """Return one module that computes what `task` gets; ValueError where there is none."""

    @abstractmethod
    def add_task(self, task: str) -> None:
        """Add what a new task needs, starting from what is there; the others' outputs stay as they are."""

    def active(self, task: str) -> int:
        """Return how many parameters, which are whole, a token of `task` meets when predicting."""
        return sum(p.numel() for p in self.parameters() if role_of(p).task in (None, task))

    def paths_of(self, task: str) -> list[nn.Module] | None:
        """Return modules that together do a token's work for `task`; None where `forward` reads no value.

        For counting that work on the meta device, where a path that depends on values cannot be taken.
        """
        return None

    def units(self) -> list[nn.Module]:
        """Return the modules that are each used whole or not at all."""
        return [m for n, m in self.named_modules() if n == "shared" or n.rpartition(".")[0] == "experts"]

    def source_of(self, name: str) -> str | None:
        """Return the replaced module's parameter that the bank's parameter `name` starts from, if any."""
        part, _, rest = name.partition(".")
        if part == "shared":
            return rest
        return rest.partition(".")[2] if part == "experts" else None

    def fresh(self, name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Return the initial value of a parameter that starts from none of the pretrained ones."""
        raise KeyError(name)


class Router(ABC):
    """A routing scheme: makes the expert banks. One file a scheme."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Options of the scheme.

        `blocks`: indices of the routed blocks (None: every second block of the later half). `parts`: what
        of them becomes an expert bank. `expert_rate`: factor on the learning rate of what one task alone
        uses in a bank (experts, gates), on top of the layer-wise decay of its block.
        """

        blocks: tuple[int, ...] | None = None
        parts: tuple[Part, ...] = ("mlp",)
        expert_rate: float = 1.0

        def __post_init__(self):
            if not 0 < self.expert_rate < math.inf:
                raise ValueError(f"router.expert_rate={self.expert_rate}: must be positive")
            for part in self.parts:
                if part not in PARTS:
                    raise ValueError(f"router.parts names {part!r}.{did_you_mean(part, PARTS)}")
            if not self.parts or len(set(self.parts)) < len(self.parts):
                raise ValueError(f"router.parts={self.parts}: name some of {', '.join(PARTS)}, each once")

        def build(self, tasks: tuple[str, ...], route: Route, depth: int) -> "Router":
            raise NotImplementedError

    keeps_outputs_only: bool = True
    """Whether a block gives its output only; an auxiliary loss would be lost by reentrant recomputation."""

    def __init__(self, config: Config, blocks: tuple[int, ...], tasks: tuple[str, ...], route: Route):
        self.config, self.blocks, self.tasks, self.route = config, blocks, tasks, route

    @abstractmethod
    def bank(self, place: str, module: nn.Module) -> ExpertBank:
        """Return the bank that replaces `module`, found at `place`, in a routed block."""


def routed_blocks(blocks: tuple[int, ...] | None, depth: int) -> tuple[int, ...]:
    """Return the blocks to route: those named, or every second one of the later half, the last included."""
    if blocks is None:
        return tuple(i for i in range(depth // 2, depth) if (depth - 1 - i) % 2 == 0)
    wrong = [i for i in blocks if not 0 <= i < depth]
    if wrong:
        later = ",".join(map(str, routed_blocks(None, depth)))
        raise ValueError(
            f"router.blocks names {wrong}, but the trunk has blocks 0 to {depth - 1}; set "
            f"model.trunk.router.blocks=none (every second block of the later half: {later}), or the blocks "
            "of your own, such as "
            f"model.trunk.router.blocks={','.join(map(str, range(depth // 2, depth)))}"
        )
    return tuple(sorted(set(blocks)))
