"""A patch embedding that also sees histograms of oriented gradients: for training from scratch on few images.

Legend: B images, C channels, H W pixels, h w cells, O directions, D width.
"""

import math

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn
from torch.nn import functional as F

DIRECTIONS = 12
_CHANNELS = DIRECTIONS + DIRECTIONS // 2 + 1
_SMALL = 0.02  # against noise where nothing is to be seen


class GradientPatchEmbed(PatchEmbed):
    """timm's patch embedding plus a learned projection of `oriented_gradients`, which has no weights.

    A ViT from scratch needs many images to find that edges matter more than brightness; a fixed first layer
    spares them (Oyallon et al. 2017, arXiv:1703.08961, with scattering instead of gradients).
    Raises ValueError where a patch is no multiple of 4 pixels.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        side = self.patch_size[0]
        if side % 4 or self.patch_size[1] != side:
            raise ValueError(
                f"trunk.stem=gradients needs square patches of a multiple of 4 pixels, not {self.patch_size}"
            )
        self.proj = _PatchesAndGradients(
            self.proj.in_channels, self.proj.out_channels, side, bias=self.proj.bias is not None
        )


class _PatchesAndGradients(nn.Conv2d):
    """A convolution on the pixels, under its usual names, plus one on the cells of their gradients."""

    def __init__(self, in_channels: int, width: int, side: int, bias: bool):
        super().__init__(in_channels, width, side, stride=side, bias=bias)
        self.gradients = nn.Conv2d(_CHANNELS, width, 2, 2)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        cells = oriented_gradients(images_BCHW, self.kernel_size[0])
        return super().forward(images_BCHW) + self.gradients(cells.to(images_BCHW.dtype))


@torch.no_grad()
def oriented_gradients(images_BCHW: Tensor, cell: int) -> Tensor:
    """Return histograms of gradient directions in overlapping cells, [B, 19, 2H/cell, 2W/cell], float32.

    12 signed directions, 6 without sign, and the energy of the neighbourhood, which the others are divided
    by: HOG (Dalal and Triggs 2005) with the signed and unsigned bins of Felzenszwalb et al. 2010. Each pixel
    votes with the colour channel of its strongest gradient, weighted by the root of its size; a vote is the
    cosine to the direction to the power of 8, so that the neighbours, 30 degrees apart, get 0.32 of it.
    """
    gradient_B2HW = _strongest_gradient(images_BCHW.float())
    size_B1HW = gradient_B2HW.square().sum(1, keepdim=True).add(1e-8).sqrt()
    angles_O = torch.arange(DIRECTIONS, device=images_BCHW.device) * (2 * math.pi / DIRECTIONS)
    directions_O2 = torch.stack((angles_O.cos(), angles_O.sin()), 1)
    cosines_BOHW = torch.einsum("bdhw,od->bohw", gradient_B2HW, directions_O2) / size_B1HW
    signed_BOHW = cosines_BOHW.relu_().square_().square_().square_() * size_B1HW.sqrt()
    votes = torch.cat((signed_BOHW, sum(signed_BOHW.chunk(2, 1))), 1)
    cells = F.avg_pool2d(votes, cell, cell // 2, padding=cell // 4)
    energy_B1hw = F.avg_pool2d(cells.square().sum(1, keepdim=True), 3, 1, 1).sqrt()
    scale = math.sqrt(_CHANNELS)  # values of about 1
    return torch.cat((cells / (energy_B1hw + _SMALL), energy_B1hw.log1p()), 1) * scale


def _strongest_gradient(images_BCHW: Tensor) -> Tensor:
    """Return (d/dx, d/dy) by Sobel's filter, of the colour channel in which it is largest."""
    padded = F.pad(images_BCHW, (1, 1, 1, 1), mode="replicate") / 8
    columns = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    rows = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    dx_BCHW, dy_BCHW = columns[..., 2:] - columns[..., :-2], rows[..., 2:, :] - rows[..., :-2, :]
    gradient_BC2HW = torch.stack((dx_BCHW, dy_BCHW), 2)
    size_BCHW = gradient_BC2HW.square().sum(2)
    best_B2HW, largest_BHW = gradient_BC2HW[:, 0], size_BCHW[:, 0]
    for channel in range(1, size_BCHW.shape[1]):  # on a CPU much faster than argmax and gather
        larger_BHW = size_BCHW[:, channel] > largest_BHW
        best_B2HW = torch.where(larger_BHW[:, None], gradient_BC2HW[:, channel], best_B2HW)
        largest_BHW = torch.maximum(largest_BHW, size_BCHW[:, channel])
    return best_B2HW
