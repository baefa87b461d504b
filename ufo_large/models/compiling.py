"""Compile the forward pass of the trunk's units: the same function in fewer kernels and passes over memory.

Only `forward` is compiled. What wraps a unit's call stays outside of the graph: the hooks with which ZeRO-3
gathers and frees its parameters, and checkpointing that computes a block again. Selective checkpointing moves
inside, where the compiler decides with it what is kept.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

BACKEND = "inductor"
MAX_GRAPHS = 64
"""Of one kind of unit: input sizes of all tasks and stages of training, and units of different options."""


class TensorDropPath(DropPath):
    """timm's DropPath with its rate as a tensor, so that blocks of different rates share one graph."""

    def __init__(self, rate: float):
        super().__init__(rate)
        self.register_buffer("rate", torch.tensor(rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(x)
        if not self.training:
            return x
        rate = self.rate.float()
        drawn = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device)
        return x * ((drawn >= rate) / (1 - rate)).to(x.dtype)


def is_compiled(wanted: bool | None, x: Tensor) -> bool:
    """Whether a unit runs compiled on `x`: while training, and with None on a GPU only."""
    return torch.is_grad_enabled() and (x.is_cuda if wanted is None else wanted)


def compile_units(units: Iterable[nn.Module], wanted: bool | None, kept: Iterable[Any] | None) -> None:
    """Let each unit's forward run compiled where `is_compiled` says so; its parameters keep their names.

    `kept`: the operations whose outputs the backward pass finds, while the rest is computed again (selective
    checkpointing); None keeps what the compiler chooses. Units of one class share their graphs, one per input
    size. Raises RuntimeError, in the forward pass, where this machine cannot compile.
    """
    if wanted is False:
        return
    operations = None if kept is None else tuple(kept)
    for unit in units:
        for module in list(unit.modules()):
            for name, child in list(module.named_children()):
                if type(child) is DropPath:
                    setattr(module, name, TensorDropPath(child.drop_prob))
        unit.__class__ = _with_compiled_forward(type(unit), wanted, operations, BACKEND)


@functools.cache
def _with_compiled_forward(
    unit_class: type[nn.Module], wanted: bool | None, kept: tuple[Any, ...] | None, backend: str
) -> type[nn.Module]:
    @functools.cache
    def compiled() -> Callable[..., Any]:  # made when first needed: else nothing of torch's is set
        torch._dynamo.config.recompile_limit = max(MAX_GRAPHS, torch._dynamo.config.recompile_limit)
        return torch.compile(_body(unit_class.forward, kept), dynamic=False, backend=backend)

    def forward(self, x: Tensor, *args, **kwargs):
        if not is_compiled(wanted, x):
            return unit_class.forward(self, x, *args, **kwargs)
        try:
            return compiled()(self, x, *args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise RuntimeError(
                f"{unit_class.__name__} cannot be compiled here ({error}); --set model.trunk.compile=false "
                "trains without"
            ) from error

    members = {"forward": forward, "__module__": unit_class.__module__}
    return type(unit_class.__name__, (unit_class,), members)


def _body(forward: Callable[..., Any], kept: tuple[Any, ...] | None) -> Callable[..., Any]:
    if kept is None:
        return forward
    contexts = functools.partial(create_selective_checkpoint_contexts, list(kept))

    def keeping(self, *args, **kwargs):
        return checkpoint(forward, self, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    return keeping
