"""Which path through a block's MLPs the tokens of a task take.

Legend: B images, L tokens, D width.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(slots=True)
class Route:
    """The task now running, shared by the trunk and all its banks.

    The trunk sets `task` before its forward pass; a micro-step runs one task on all ranks, and the
    recomputation of a checkpointed block happens in the backward pass of the same micro-step, so it
    reads the same task. `progress` is the share of training done, 0..1, for schemes that anneal.
    Banks leave auxiliary losses and statistics here; the trunk takes and clears them after its forward.
    """

    task: str = ""
    progress: float = 0.0
    losses: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)


class ExpertBank(nn.Module, ABC):
    """Stands where a block's MLP stood; holds the shared MLP and / or one expert a task.

    Every expert starts as a copy of the MLP it replaces, so that the trunk's output at step 0 is the
    pretrained one. Experts carry the role `expert` of their task, set here when they are made.
    """

    def __init__(self, tasks: tuple[str, ...], route: Route):
        super().__init__()
        self.tasks = tasks
        self.route = route

    @abstractmethod
    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return the routed MLP's output, [B, L, D], for `self.route.task`."""


class Router(ABC):
    """A routing scheme: makes the bank of one block. One file a scheme."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Options of the scheme; `blocks`: indices of the routed blocks (None: the scheme's default)."""

        blocks: tuple[int, ...] | None = None

        def build(self, tasks: tuple[str, ...], route: Route, depth: int) -> "Router":
            raise NotImplementedError

    @abstractmethod
    def bank(self, block: int, mlp: nn.Module) -> nn.Module:
        """Return what replaces the MLP of block `block` (the MLP itself where the block is not routed)."""
