"""Estimate depth by fusing the pyramid from coarse to fine with residual units (DPT, arXiv:2103.13413, 3.2).

The fusion layers are transformers' own; our pyramid stands in for DPT's reassemble stage, so all levels come
from the trunk's last map. Heavier than the dense head, and finer: log depth comes out at a quarter of the
finest stride, at the input's own size for stride 4.

Legend: B images, W head width, H W height and width of a map.
"""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from ufo_large.structures import Features, TaskInfo
from ufo_large.tasks.depth_base import DepthHead, LogDepthLayer
from ufo_large.tasks.pyramid_fusion import Enlarge

_LAST_WIDTH = 32


class DPTDepth(DepthHead):
    """From the coarsest level on: add the next one, refine by residual units, double the size.

    Two differences from transformers' DPT: maps are enlarged with cell edges, not cell centres, in place, so
    that true strides stay true; and no ReLU ends the network, because log depth may be negative.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(DepthHead.Config):
        strides: tuple[int, ...] = (4, 8, 16, 32)

        def __post_init__(self):
            DepthHead.Config.__post_init__(self)  # super() does not find its way in a class with slots
            if not self.strides or any(b != 2 * a for a, b in pairwise(self.strides)):
                raise ValueError(f"strides={self.strides}: name pyramid strides, each twice the one before")
            if self.strides[0] % 4:
                raise ValueError(f"strides={self.strides}: start from 4 or more, for it is enlarged 4 times")

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "DPTDepth":
            return DPTDepth(self, info, pyramid_width)

    def __init__(self, config: Config, info: TaskInfo, pyramid_width: int):
        super().__init__(info)
        self.config = config
        self.strides = config.strides
        self.output_stride = config.strides[0] // 4
        width = config.width or pyramid_width
        self.reduce = nn.ModuleList(_conv(pyramid_width, width, bias=False) for _ in self.strides)
        self.fusion = _fusion_layers(width, len(self.strides))
        self.refine = nn.Sequential(
            _conv(width, max(1, width // 2)),
            Enlarge(2),
            _conv(max(1, width // 2), _LAST_WIDTH),
            nn.ReLU(),
        )
        self.log_depth = LogDepthLayer(_LAST_WIDTH, config.typical_metres)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return `log_depth_BHW` at a quarter of the finest stride."""
        fused_BWHW = self.fuse([features.pyramid[stride] for stride in self.strides])
        return {"log_depth_BHW": self.log_depth(self.refine(fused_BWHW))[:, 0]}

    def fuse(self, levels: list[Tensor]) -> Tensor:
        """Return [B, W, H, W] at half the finest stride; what sticks out beyond a finer level is cut off."""
        levels = [conv(level) for conv, level in zip(self.reduce, levels, strict=True)]
        fused_BWHW = self.fusion[0](levels[-1])
        for layer, level_BWHW in zip(self.fusion[1:], reversed(levels[:-1]), strict=True):
            height, width = level_BWHW.shape[-2:]
            fused_BWHW = layer(fused_BWHW[..., :height, :width], level_BWHW)
        return fused_BWHW


def _fusion_layers(width: int, num_levels: int) -> nn.ModuleList:
    """Return transformers' layers, coarsest first; the coarsest adds nothing and loses that residual unit."""
    # transformers takes seconds to import: only a run that uses this head pays.
    from transformers import DPTConfig

    from ufo_large.tasks.dpt_fusion import FusionLayer

    config = DPTConfig(fusion_hidden_size=width)
    layers = nn.ModuleList(FusionLayer(config) for _ in range(num_levels))
    layers[0].residual_layer1 = nn.Identity()
    return layers


def _conv(width_in: int, width_out: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(width_in, width_out, 3, padding=1, bias=bias)
