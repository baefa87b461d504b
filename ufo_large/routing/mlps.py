"""MLPs of timm's ViTs: one like another but for its hidden size, and two side by side as one.

The sum of two MLPs of one input is one MLP that has the hidden units of both: its first layer's rows are
those of both, its last layer's columns too, and its output bias is their sum. That holds with a gate for each
unit (GLU, SwiGLU) as well, but not with a norm over the hidden units.
"""

import copy
from functools import partial

import torch
from timm.layers import GluMlp, Mlp, SwiGLU
from torch import Tensor, nn

AnyMlp = Mlp | GluMlp | SwiGLU


def is_mlp(module: nn.Module) -> bool:
    """Whether it is one of the MLPs that are known here."""
    return type(module) in (Mlp, GluMlp, SwiGLU)


def hidden_size(mlp: AnyMlp) -> int:
    """Return the number of hidden units, after their gates."""
    return mlp.fc2.in_features


def resized(mlp: AnyMlp, hidden: int) -> AnyMlp:
    """Return a new MLP like `mlp`, of `hidden` units, as its constructor draws it.

    Made by constructors throughout: see `clone_module`.
    """
    first, last = mlp.fc1_x if isinstance(mlp, SwiGLU) else mlp.fc1, mlp.fc2
    gated = isinstance(mlp, GluMlp)
    options = {"gate_last": mlp.gate_last} if gated else {}
    normless = isinstance(mlp.norm, nn.Identity)
    return type(mlp)(
        first.in_features,
        2 * hidden if gated else hidden,
        last.out_features,
        act_layer=lambda: copy.deepcopy(mlp.act),
        norm_layer=None if normless else partial(type(mlp.norm), eps=mlp.norm.eps),
        bias=(first.bias is not None, last.bias is not None),
        drop=(mlp.drop1.p, mlp.drop2.p),
        device=last.weight.device,
        dtype=last.weight.dtype,
        **options,
    ).train(mlp.training)


@torch.no_grad()
def side_by_side(mlp: AnyMlp, other: AnyMlp) -> AnyMlp:
    """Return one MLP whose output is the sum of both; ValueError where they normalise their hidden units."""
    if not isinstance(mlp.norm, nn.Identity):
        raise ValueError(
            f"its MLPs normalise their hidden units together ({type(mlp.norm).__name__}): no dense MLP "
            "equals two of them side by side"
        )
    both = resized(mlp, hidden_size(mlp) + hidden_size(other))
    halves = 2 if isinstance(mlp, GluMlp) else 1  # one layer holds the units, then their gates
    for name, target in both.named_parameters():
        target.copy_(_joined(name, mlp.get_parameter(name), other.get_parameter(name), halves))
    return both


def _joined(name: str, one: Tensor, other: Tensor, halves: int) -> Tensor:
    if name == "fc2.weight":
        return torch.cat([one, other], dim=1)
    if name == "fc2.bias":
        return one + other
    pairs = zip(one.chunk(halves), other.chunk(halves), strict=True)
    return torch.cat([half for pair in pairs for half in pair])


def widened(mlp: AnyMlp, hidden: int) -> AnyMlp:
    """Return an MLP of the same output with `hidden` units, those added being all zero."""
    added = resized(mlp, hidden - hidden_size(mlp))
    for parameter in added.parameters():
        nn.init.zeros_(parameter)
    return side_by_side(mlp, added)
