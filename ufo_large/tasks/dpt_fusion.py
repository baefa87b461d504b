"""The fusion layer of the DPT head: transformers' own, enlarged as all maps here are.

Legend: B images, W head width, H W height and width of a map.
"""

from torch import Tensor
from transformers.models.dpt.modeling_dpt import DPTFeatureFusionLayer

from ufo_large.tasks.pyramid_fusion import enlarge


class FusionLayer(DPTFeatureFusionLayer):
    """Add a level of the same size, refine, double with cell edges in place, mix the channels."""

    def forward(self, x_BWHW: Tensor, level_BWHW: Tensor | None = None) -> Tensor:
        if level_BWHW is not None:
            x_BWHW = x_BWHW + self.residual_layer1(level_BWHW)
        return self.projection(enlarge(self.residual_layer2(x_BWHW), 2))
