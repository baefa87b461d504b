"""Make a module of the same structure, with values where they are at hand."""

import torch
from torch import nn


def clone_module(module: nn.Module) -> nn.Module:
    """Build `module` again through its layers' own constructors and copy its values if they are whole.

    Constructors, not deepcopy: under `deepspeed.zero.Init` a parameter is cut into shards as soon as its
    layer is built, and only a constructor makes the copy sharded from the start. There, and on the meta
    device, no value is at hand; the weight loader fills the copies. Raises ValueError for a layer type it
    cannot build.
    """
    twin = _same_structure(module, "")
    with torch.no_grad():
        for target, source in zip(twin.parameters(), module.parameters(), strict=True):
            if target.shape == source.shape and target.numel() and not source.is_meta:
                target.copy_(source)
    return twin


def _same_structure(module: nn.Module, name: str) -> nn.Module:
    if module._parameters and any(p is not None for p in module._parameters.values()):
        return _rebuild(module, name)
    twin = type(module).__new__(type(module))
    nn.Module.__init__(twin)  # parameters, hooks and children of its own
    options = {k: v for k, v in module.__dict__.items() if k not in twin.__dict__}
    twin.__dict__.update(options, training=module.training)
    for child, layer in module._modules.items():
        twin.add_module(child, _same_structure(layer, f"{name}.{child}"))
    return twin


def _rebuild(layer: nn.Module, name: str) -> nn.Module:
    if type(layer) is nn.Linear:
        return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        return type(layer)(layer.normalized_shape, eps=layer.eps)
    raise ValueError(
        f"cannot copy the layer {name or 'itself'} of type {type(layer).__name__} into an expert; "
        "routable MLPs are made of linear layers and layer norms"
    )
