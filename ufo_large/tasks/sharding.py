"""Initial values of heads, also where `deepspeed.zero.Init` takes parameters away once a layer is made."""

from torch import nn


class InitialisedAsPublished:
    """Give networks made of transformers' parts the initial values that transformers' own models have.

    Put it before the `PreTrainedModel` that the network derives from. In classes outside its own package
    transformers passes over modules without parameters of their own: deformable attention would start
    without its grid of sampling points, and a whole model without what it sets in its layers.
    """

    @classmethod
    def is_custom_code(cls) -> bool:
        return False

    def _init_weights(self, module: nn.Module) -> None:
        if is_whole(module):
            super()._init_weights(module)


def is_whole(module: nn.Module) -> bool:
    """Say whether every parameter of `module` is at hand, so that it can be given initial values.

    Where it is not, values come later from a copy of the head that was built whole.
    """
    return all(parameter.numel() > 0 for parameter in module.parameters())
