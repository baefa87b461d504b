"""Bring all pyramid levels to the finest one and sum them.

Legend: B images, P pyramid width, W output width, H W height and width of a map.
"""

from math import gcd

from torch import Tensor, nn

from ufo_large.tasks.resampling import resampled


class PyramidFusion(nn.Module):
    """A 1x1 convolution a level, bilinear enlargement, sum, then `num_convs` of 3x3 + GroupNorm + ReLU.

    Levels are enlarged by exactly the ratio of their strides; what a coarse level covers beyond the finest
    is cut off, so that cells keep their place in the image.

    A lighter Panoptic FPN (arXiv:1901.02446, section 3). GroupNorm, because a micro-batch of one or two
    images is too small for BatchNorm.
    """

    def __init__(self, strides: tuple[int, ...], pyramid_width: int, width: int, num_convs: int):
        super().__init__()
        self.strides = strides
        self.laterals = nn.ModuleList(nn.Conv2d(pyramid_width, width, 1) for _ in strides)
        self.refine = nn.Sequential(*[_conv_norm_relu(width) for _ in range(num_convs)])

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return [B, W, H, W] at the size of the first level."""
        height, width = levels[0].shape[-2:]
        fused_BWHW = 0
        for lateral, level_BPHW, stride in zip(self.laterals, levels, self.strides, strict=True):
            level_BWHW = enlarge(lateral(level_BPHW), stride / self.strides[0])
            fused_BWHW = fused_BWHW + level_BWHW[..., :height, :width]
        return self.refine(fused_BWHW)


def enlarge(x_BCHW: Tensor, ratio: float) -> Tensor:
    """Enlarge a map bilinearly by `ratio`, cell edges staying where they are in the image."""
    if ratio == 1:
        return x_BCHW
    height, width = (int(side * ratio) for side in x_BCHW.shape[-2:])
    return resampled(x_BCHW, ratio, (height, width))


class Enlarge(nn.Module):
    """`enlarge` as a layer."""

    def __init__(self, ratio: float):
        super().__init__()
        self.ratio = ratio

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return enlarge(x_BCHW, self.ratio)


def _conv_norm_relu(width: int) -> nn.Sequential:
    conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(gcd(32, width), width), nn.ReLU())
