"""Label pixels by predicting one mask a query and classifying the query (Mask2Former, arXiv:2112.01527).

Decoder and the terms of matching and losses are transformers' own; our pyramid stands in for their pixel
decoder. For a pretrained trunk: from scratch the dense head learns much faster.

Legend: B images, Q queries, K classes, D head width, N predictions (queries alone, then every layer),
H W height and width of a map.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ufo_large.structures import Features, TaskInfo
from ufo_large.tasks.mask_resize import check_label_range
from ufo_large.tasks.pyramid_fusion import PyramidFusion
from ufo_large.tasks.query_segmenter import QuerySegmenter

if TYPE_CHECKING:
    from transformers import Mask2FormerConfig


class Mask2FormerSegmenter(QuerySegmenter):
    """Mask2Former's decoder on our pyramid; every one of its layers predicts."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(QuerySegmenter.Config):
        """`strides`: masks live at the first, the last three are attended to in turn, a layer each."""

        strides: tuple[int, ...] = (4, 8, 16, 32)
        width: int = 256
        layers: int = 9
        heads: int = 8
        feedforward: int = 2048

        def __post_init__(self):
            QuerySegmenter.Config.__post_init__(self)
            if len(self.strides) not in (3, 4) or list(self.strides) != sorted(set(self.strides)):
                raise ValueError(f"strides={self.strides}: name three or four pyramid strides, finest first")
            if self.heads < 1:
                raise ValueError(f"heads={self.heads}: choose 1 or more")
            if self.width % (2 * self.heads):
                raise ValueError(f"width={self.width}: choose a multiple of 2 * heads = {2 * self.heads}")
            if self.layers < 3:
                raise ValueError(
                    f"layers={self.layers}: choose 3 or more, so that every level is attended to"
                )

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "Mask2FormerSegmenter":
            return Mask2FormerSegmenter(self, info, pyramid_width)

    def __init__(self, config: Config, info: TaskInfo, pyramid_width: int):
        super().__init__(info)
        check_label_range(info)
        # transformers takes seconds to import: only a run that uses this head pays.
        from ufo_large.tasks.mask2former_decoder import Mask2FormerDecoder

        self.strides = config.strides
        self.mask_stride = config.strides[0]
        self.fuse = PyramidFusion(self.strides, pyramid_width, config.width, num_convs=1)
        self.to_masks = nn.Conv2d(config.width, config.width, 1)
        self.decoder = Mask2FormerDecoder(config, info.num_classes, pyramid_width)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return `class_logits` [B, N, Q, K + 1] (last: no object) and `mask_logits` [B, N, Q, H, W]."""
        levels = [features.pyramid[stride] for stride in self.strides]
        class_logits, mask_logits = self.decoder(levels[:-4:-1], self.to_masks(self.fuse(levels)))
        return {
            "class_logits": class_logits,
            "mask_logits": mask_logits,
        }

    @property
    def loss_config(self) -> "Mask2FormerConfig":
        return self.decoder.config
