"""Classify an image with one linear layer on a grid of its feature map: each place has its own weights.

Legend: B images, D trunk width, h w cells of the map, K classes.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ufo_large.structures import Features, TaskInfo
from ufo_large.tasks.classification_linear import LinearClassifier


class GridClassifier(LinearClassifier):
    """The map averaged to `rows` x `columns` cells, all of them into the linear layer.

    Where the object fills the image, what is where tells classes apart: a wheel low on the left, a lamp on
    the right. A trunk from scratch learns this much sooner from weights a place than through one pooled
    vector; a pretrained trunk does not need it. The grid is that of spatial pyramids (Lazebnik et al. 2006).
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(LinearClassifier.Config):
        """`rows, columns`: cells of the grid."""

        rows: int = 4
        columns: int = 4

        def __post_init__(self):
            LinearClassifier.Config.__post_init__(self)
            if min(self.rows, self.columns) < 1:
                raise ValueError(f"rows={self.rows}, columns={self.columns}: must be at least 1")

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "GridClassifier":
            return GridClassifier(self, info, trunk_width)

    def __init__(self, config: Config, info: TaskInfo, trunk_width: int):
        cells = config.rows * config.columns
        super().__init__(config, info, trunk_width * cells)
        nn.init.trunc_normal_(self.linear.weight, std=0.02 / cells**0.5)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return `logits_BK`."""
        cells = F.adaptive_avg_pool2d(features.map_BDHW, (self.config.rows, self.config.columns))
        return {"logits_BK": self.linear(self.dropout(cells.flatten(1)))}
