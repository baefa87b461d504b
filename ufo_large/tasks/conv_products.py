"""Convolutions whose windows do not overlap, as the matrix products that they are.

Kernel 1, and transposed with kernel and stride 2: each input cell decides its outputs alone, so one product
over the cells is exact and every card has a fast one, where cuDNN must find a kernel for each shape. Maps are
read and written with their channels last, as a ViT's tokens come.

Legend: B images, C channels in, O channels out, H W height and width of a map, i j cell of a doubled map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pointwise(x_BCHW: Tensor, weight_OC11: Tensor, bias_O: Tensor | None) -> Tensor:
    """Return what `conv2d` with a kernel of 1 gives, [B, O, H, W]."""
    if torch.compiler.is_exporting():
        return F.conv2d(x_BCHW, weight_OC11, bias_O)
    return F.linear(x_BCHW.permute(0, 2, 3, 1), weight_OC11.flatten(1), bias_O).permute(0, 3, 1, 2)


def doubled(x_BCHW: Tensor, weight_COij: Tensor, bias_O: Tensor | None) -> Tensor:
    """Return what `conv_transpose2d` with kernel 2 and stride 2 gives, [B, O, 2 H, 2 W]."""
    if torch.compiler.is_exporting():
        return F.conv_transpose2d(x_BCHW, weight_COij, bias_O, stride=2)
    bias_ijO = None if bias_O is None else bias_O.repeat(4)
    weight_ijOC = weight_COij.permute(2, 3, 1, 0).flatten(0, 2)
    y_BHWijO = F.linear(x_BCHW.permute(0, 2, 3, 1), weight_ijOC, bias_ijO).unflatten(-1, (2, 2, -1))
    return y_BHWijO.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class PointwiseConv(nn.Conv2d):
    """`nn.Conv2d` with a kernel of 1 as a product."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return pointwise(x_BCHW, self.weight, self.bias)


class DoublingConv(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with kernel 2 and stride 2 as a product."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return doubled(x_BCHW, self.weight, self.bias)


def use_products(module: nn.Module) -> nn.Module:
    """Let every such convolution inside `module` be a product; parameters and their names stay. Return it."""
    for part in module.modules():
        if type(part) is nn.Conv2d and part.kernel_size == (1, 1) and _is_plain(part, 1):
            part.__class__ = PointwiseConv
        elif type(part) is nn.ConvTranspose2d and part.kernel_size == (2, 2) and _is_plain(part, 2):
            part.__class__ = DoublingConv
    return module


def _is_plain(conv: nn.Conv2d | nn.ConvTranspose2d, stride: int) -> bool:
    is_dense = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding in ((0, 0), "valid")
    return is_dense and conv.stride == (stride, stride) and conv.output_padding == (0, 0)
