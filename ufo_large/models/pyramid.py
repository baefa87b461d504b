"""A feature pyramid from the single map of a plain ViT.

Legend: B images, D trunk width, P pyramid width, H W height and width of the trunk's map.
"""

import math

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from ufo_large.tasks.resampling import resampled


class SimplePyramid(nn.Module):
    """ViTDet's simple feature pyramid (Li et al. 2022, arXiv:2203.16527, section 3).

    Every level comes from the last map alone: transposed convolutions make it finer, max pooling coarser,
    then a 1x1 and a 3x3 convolution with layer norm set its width.

    Strides are powers of two and true: cell i of a level covers pixels i * stride to (i + 1) * stride. For
    patches of another size (14) the trunk's map is first resampled to the nearest such stride (16). Maps
    round up, so a level covers the whole image. Raises ValueError for a stride it cannot make.
    """

    def __init__(self, width: int, pyramid_width: int, patch: int, strides: tuple[int, ...]):
        super().__init__()
        self.strides = tuple(sorted(strides))
        self.scale = patch / _base_stride(patch)
        steps = {s: _doublings(patch, s) for s in strides}
        self.levels = nn.ModuleDict(
            {
                str(s): nn.Sequential(*_resize(width, n), *_project(width, n, pyramid_width))
                for s, n in steps.items()
            }
        )

    def forward(self, map_BDHW: Tensor) -> tuple[Tensor, ...]:
        """Return one map [B, P, ., .] a stride, finest first; a tuple, as DeepSpeed's hooks want it."""
        if self.scale != 1:
            size = tuple(math.ceil(side * self.scale) for side in map_BDHW.shape[-2:])
            map_BDHW = resampled(map_BDHW, self.scale, size)
        return tuple(self.levels[str(s)](map_BDHW) for s in self.strides)


def _base_stride(patch: int) -> int:
    return 2 ** round(math.log2(patch))


def _doublings(patch: int, stride: int) -> int:
    """Return how often the map's side is doubled (negative: halved) for a level."""
    if stride < 1 or stride & (stride - 1):
        raise ValueError(f"pyramid stride {stride}: levels are powers of two, such as 4, 8, 16, 32")
    doublings = round(math.log2(_base_stride(patch) / stride))
    if doublings > 3:
        raise ValueError(f"pyramid stride {stride} is too fine for patches of {patch} pixels")
    return doublings


def _resize(width: int, doublings: int) -> list[nn.Module]:
    if doublings < 0:
        return [nn.MaxPool2d(2, ceil_mode=True) for _ in range(-doublings)]
    layers: list[nn.Module] = []
    for step in range(doublings):
        if step:
            layers += [LayerNorm2d(width >> step), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width >> step, width >> (step + 1), 2, stride=2))
    return layers


def _project(width: int, doublings: int, pyramid_width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(width >> max(doublings, 0), pyramid_width, 1, bias=False),
        LayerNorm2d(pyramid_width),
        nn.Conv2d(pyramid_width, pyramid_width, 3, padding=1, bias=False),
        LayerNorm2d(pyramid_width),
    ]
