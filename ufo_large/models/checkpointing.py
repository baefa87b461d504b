"""Activation checkpointing of transformer blocks: trade compute or PCIe traffic for memory.

Each mode wraps a block's `__call__`, hooks included: under ZeRO-3 the hooks gather the block's parameters,
and the recomputation in the backward pass needs them gathered too. Parameter names do not change.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from fairscale.nn.checkpoint import checkpoint_wrapper
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from ufo_large.models.compiling import is_compiled

Checkpointing = Literal["none", "selective", "full", "offload"]
CHECKPOINTING: tuple[Checkpointing, ...] = get_args(Checkpointing)

_aten = torch.ops.aten
KEPT = frozenset(
    {
        _aten.mm.default,
        _aten.addmm.default,
        _aten.bmm.default,
        _aten.baddbmm.default,
        _aten._scaled_dot_product_flash_attention.default,
        _aten._scaled_dot_product_efficient_attention.default,
        _aten._scaled_dot_product_cudnn_attention.default,
        _aten._scaled_dot_product_flash_attention_for_cpu.default,
    }
)
_COPIED = frozenset({_aten.mm.default, _aten.bmm.default})


def checkpoint_block(block: nn.Module, mode: Checkpointing, compiled: bool | None = False) -> None:
    """Let `block` keep fewer activations for its backward pass, from now on.

    `compiled`: as `is_compiled` reads it; what is compiled is checkpointed selectively by the compiler.

    `none` keeps all. `full` keeps the block's input and computes the rest again. `selective` keeps the
    outputs of matrix products and attention too and computes only what is cheap again. `offload` is `full`
    with the input moved to host memory until the backward pass (fairscale's checkpoint_wrapper); it is
    reentrant, so only what the block returns has a gradient. Computing again happens under the autocast of
    the forward pass, in every mode.
    """
    if mode == "none":
        return
    block.__class__ = _with_checkpointed_call(type(block), mode, compiled)
    if mode == "offload":
        # not registered as a child: the shim only calls the block back, hooks included
        block.__dict__["_offloaded_call"] = checkpoint_wrapper(_CallBack(block), offload_to_cpu=True)


@functools.cache
def _with_checkpointed_call(
    block_class: type[nn.Module], mode: Checkpointing, compiled: bool | None
) -> type[nn.Module]:
    run = {"selective": _selective, "full": _full, "offload": _offload}[mode]

    def call(self, *args, **kwargs):
        inside = mode == "selective" and is_compiled(compiled, args[0])
        if inside or not torch.is_grad_enabled():
            return block_class.__call__(self, *args, **kwargs)
        return run(self, functools.partial(block_class.__call__, self), *args, **kwargs)

    return type(
        block_class.__name__, (block_class,), {"__call__": call, "__module__": block_class.__module__}
    )


def _full(block: nn.Module, run: Callable[..., Any], *args, **kwargs):
    return checkpoint(run, *args, use_reentrant=False, **kwargs)


def _selective(block: nn.Module, run: Callable[..., Any], *args, **kwargs):
    return checkpoint(run, *args, use_reentrant=False, context_fn=_keeping_contexts, **kwargs)


def _keeping_contexts() -> tuple[TorchDispatchMode, TorchDispatchMode]:
    """Return torch's two modes, made blind to all but the kept operations.

    They count every operation and stop where the recomputation differs from the forward pass. Under ZeRO-3 it
    does: the hooks' gathering and freeing is not the same twice. DeepSpeed's own linear layer, where it is
    used (`memory_efficient_linear`), adds the bias in place, through a view that torch's check for changes
    misses: then products are kept as copies.
    """
    keep, replay = create_selective_checkpoint_contexts(list(KEPT))
    copied = frozenset() if functional.linear is torch._C._nn.linear else _COPIED
    keep.__class__ = _seeing_only_kept(type(keep), copied=copied)
    replay.__class__ = _seeing_only_kept(type(replay), copied=frozenset())
    return keep, replay


@functools.cache
def _seeing_only_kept(mode_class: type[TorchDispatchMode], copied: frozenset) -> type[TorchDispatchMode]:
    def dispatch(self, operation, types, args=(), kwargs=None):
        if operation not in KEPT:
            return operation(*args, **(kwargs or {}))
        output = mode_class.__torch_dispatch__(self, operation, types, args, kwargs)
        return output.clone() if operation in copied else output

    return type(mode_class.__name__, (mode_class,), {"__torch_dispatch__": dispatch})


def _offload(block: nn.Module, run: Callable[..., Any], *args, **kwargs):
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    if not any(tensor.requires_grad for tensor in (*tensors, *block.parameters())):
        return run(*args, **kwargs)
    device = tensors[0].device.type
    autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
    return block._offloaded_call(*args, autocast=autocast, **kwargs)


class _CallBack(nn.Module):
    """The module that fairscale sees: its forward is the block's own, unwrapped `__call__`.

    fairscale cuts the output off the graph unless a parameter or an input needs a gradient, and looks at
    inputs when they are copies on the host, which need none: so there is always such a parameter. It knows
    that there was autocast, not its dtype, and would compute again in float16: so the call brings it along.
    """

    def __init__(self, block: nn.Module):
        super().__init__()
        plain_class = type(block).__mro__[1]
        self.__dict__["run"] = functools.partial(plain_class.__call__, block)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        yield nn.Parameter(torch.empty(0))

    def forward(self, *args, autocast: tuple[str, torch.dtype, bool], **kwargs):
        device, dtype, enabled = autocast
        with torch.autocast(device, dtype=dtype, enabled=enabled):
            return self.run(*args, **kwargs)
