"""Estimate the depth of every pixel with one light convolutional head over the pyramid.

Legend: B images, W head width, H W height and width of a map.
"""

from dataclasses import dataclass

from torch import Tensor

from ufo_large.structures import Features, TaskInfo
from ufo_large.tasks.depth_base import DepthHead, LogDepthLayer
from ufo_large.tasks.pyramid_fusion import PyramidFusion


class DenseDepth(DepthHead):
    """Fuse the levels at the finest stride, read log depth off each cell there."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(DepthHead.Config):
        """`num_convs`: 3x3 convolutions after the sum of the levels."""

        strides: tuple[int, ...] = (4, 8, 16)
        num_convs: int = 1

        def __post_init__(self):
            DepthHead.Config.__post_init__(self)  # super() does not find its way in a class with slots
            if not self.strides or list(self.strides) != sorted(set(self.strides)):
                raise ValueError(f"strides={self.strides}: name at least one pyramid stride, finest first")
            if self.num_convs < 1:
                raise ValueError(f"num_convs={self.num_convs}: choose 1 or more")

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "DenseDepth":
            return DenseDepth(self, info, pyramid_width)

    def __init__(self, config: Config, info: TaskInfo, pyramid_width: int):
        super().__init__(info)
        self.config = config
        self.strides = config.strides
        self.output_stride = config.strides[0]
        width = config.width or pyramid_width
        self.fuse = PyramidFusion(self.strides, pyramid_width, width, config.num_convs)
        self.log_depth = LogDepthLayer(width, config.typical_metres)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return `log_depth_BHW` at the finest stride."""
        fused_BWHW = self.fuse([features.pyramid[stride] for stride in self.strides])
        return {"log_depth_BHW": self.log_depth(fused_BWHW)[:, 0]}
