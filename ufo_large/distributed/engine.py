"""What the trainer needs of a backend, and the backend without DeepSpeed: one process, plain torch."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ufo_large.distributed.local_gradients import LocalGradients
from ufo_large.distributed.plain_files import Write, read_plain
from ufo_large.distributed.task_gradients import GradientStore


@dataclass(frozen=True, slots=True)
class Piece:
    """`count` elements of the flattened parameter `name`, from `start` on, at `offset` of a flat shard."""

    name: str
    start: int
    offset: int
    count: int


Layout = tuple[tuple[Piece, ...], ...]
"""The pieces of each of a rank's shards."""


class Engine(Protocol):
    """A model with its optimizer, sharded in some way. Every method is called on all ranks."""

    kind: str
    """`plain`, `zero1`, `zero2` or `zero3`."""
    module: nn.Module
    device: torch.device
    gradients: GradientStore
    grad_norm: float
    """Norm of all gradients in the last step, before clipping."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model's forward pass."""

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of one micro-batch."""

    def step(self, learning_rates: list[float]) -> None:
        """Clip and update with one learning rate for each parameter group."""

    def save(self, folder: Path, write: Write) -> None:
        """Hand weights and optimizer state of this rank to `write`, for files in `folder`, which is there.

        A small file or what is swapped to NVMe may be written without it.
        """

    def check_files(self, folder: Path) -> None:
        """Raise, on this rank and without a collective, where a file for `load` is missing or damaged."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, under the same world size, ZeRO stage and layout.

        Rates, weight decay and the like stay as the optimizer was built.
        """

    def predicting(self) -> contextlib.AbstractContextManager:
        """Return the context for forward passes without gradients between steps of training."""

    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, float32 CPU tensor) one by one; on ranks other than 0 the tensors are empty."""

    def master_shards(self) -> list[Tensor]:
        """Return this rank's part of the float32 weights that the optimizer moves: live, in a fixed order."""

    def layout(self) -> Layout:
        """Return what lies where in each of `master_shards`."""

    def optimizer_states(self) -> list[dict[str, Any]]:
        """Return the optimizer's state of each of `master_shards`: live, empty before the first step."""

    def publish_masters(self) -> None:
        """Make the model compute with what `master_shards` hold, after they were written to."""


@contextlib.contextmanager
def keeping_options(optimizer: Any) -> Iterator[None]:
    """Give the groups their rate, decay and so on back where a checkpoint restores its own in the body.

    A fused optimizer counts its steps where its parameters are; what an unfused one saved is moved there.
    """
    built = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    yield
    for group, options in zip(optimizer.param_groups, built, strict=True):
        group.update(options)
    inner = getattr(optimizer, "optimizer", optimizer)  # DeepSpeed's wraps torch's
    if any(group.get("fused") for group in inner.param_groups):
        for parameter, state in inner.state.items():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].to(parameter.device)


class PlainEngine:
    """One process, no sharding: the reference that every ZeRO stage must agree with."""

    kind = "plain"

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        clip_norm: float | None = None,
    ):
        self.module = module.to(device)
        self.optimizer = optimizer
        self.device = device
        self.clip_norm = clip_norm
        self.grad_norm = 0.0
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.gradients = LocalGradients(self._parameters, self._take)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def _take(self, gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(self.gradients.parameters, gradients, strict=True):
            parameter.grad = gradient.to(parameter.dtype)

    def step(self, learning_rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, learning_rates, strict=True):
            group["lr"] = rate
        limit = self.clip_norm if self.clip_norm else float("inf")
        self.grad_norm = float(nn.utils.clip_grad_norm_(self._parameters, limit))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def save(self, folder: Path, write: Write) -> None:
        state = {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        write(state, folder / "plain.pt")

    def check_files(self, folder: Path) -> None:
        read_plain(folder / "plain.pt", mmap=True)

    def load(self, folder: Path) -> None:
        state = read_plain(folder / "plain.pt")
        self.module.load_state_dict(state["module"])
        with keeping_options(self.optimizer):
            self.optimizer.load_state_dict(state["optimizer"])

    def predicting(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.module.state_dict().items():
            yield name, tensor.detach().float().cpu()

    def master_shards(self) -> list[Tensor]:
        return [p.detach() for p in self._parameters]

    def layout(self) -> Layout:
        names = {p: name for name, p in self.module.named_parameters()}
        return tuple((Piece(names[p], 0, 0, p.numel()),) for p in self._parameters)

    def optimizer_states(self) -> list[dict[str, Any]]:
        return [self.optimizer.state[p] for p in self._parameters]

    def publish_masters(self) -> None:
        """Nothing to do: the model computes with the optimizer's own weights."""
