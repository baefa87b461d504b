"""Building heads whose parameters are taken away as soon as their layer is made (`deepspeed.zero.Init`)."""

from torch import nn


def is_whole(module: nn.Module) -> bool:
    """Say whether every parameter of `module` is at hand, so that it can be given initial values.

    Where it is not, values come later from a copy of the head that was built whole.
    """
    return all(parameter.numel() > 0 for parameter in module.parameters())
