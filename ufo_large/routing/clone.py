"""Make a module of the same structure, with values where they are at hand."""

import torch
from torch import nn


def clone_module(module: nn.Module) -> nn.Module:
    """Return a module like `module`, layer by layer, with values copied if they are whole.

    Not deepcopy: under `deepspeed.zero.Init` a parameter is cut into shards as soon as the constructor of
    its layer is done, and only a parameter made in a constructor is sharded from the start. There, and on
    the meta device, no value is at hand; the weight loader fills the copies.
    """
    twin = _same_structure(module)
    with torch.no_grad():
        for target, source in zip(twin.parameters(), module.parameters(), strict=True):
            if target.shape == source.shape and target.numel() and not source.is_meta:
                target.copy_(source)
    return twin


def _same_structure(module: nn.Module) -> nn.Module:
    twin = type(module).__new__(type(module))
    nn.Module.__init__(twin)  # parameters, hooks and children of its own
    options = {k: v for k, v in module.__dict__.items() if k not in twin.__dict__}
    twin.__dict__.update(options, training=module.training)
    twin._parameters.update(_Parameters(module)._parameters)
    for name, buffer in module._buffers.items():
        persistent = name not in module._non_persistent_buffers_set
        twin.register_buffer(name, None if buffer is None else buffer.clone(), persistent)
    for name, child in module._modules.items():
        twin.add_module(name, None if child is None else _same_structure(child))
    return twin


class _Parameters(nn.Module):
    """New parameters of the shapes of a layer's own; a constructor, so that they are made sharded."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        for name, like in layer._parameters.items():
            self.register_parameter(name, None if like is None else self._new(like))

    @staticmethod
    def _new(like: nn.Parameter) -> nn.Parameter:
        shape = getattr(like, "ds_shape", like.shape)
        return nn.Parameter(torch.empty(shape, dtype=like.dtype, device=like.device), like.requires_grad)
