"""The network inside the Mask2Former head: queries that attend to the pyramid within their own masks.

Legend: B images, Q queries, D width, N predictions (queries alone, then every layer), H W height and
width of a map.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPreTrainedModel,
    Mask2FormerSinePositionEmbedding,
    Mask2FormerTransformerModule,
)

from ufo_large.tasks.sharding import InitialisedAsPublished

if TYPE_CHECKING:
    from ufo_large.tasks.segmentation_mask2former import Mask2FormerSegmenter


class Mask2FormerDecoder(InitialisedAsPublished, Mask2FormerPreTrainedModel):
    """transformers' masked-attention decoder with its own initialisation, plus the class layer."""

    def __init__(self, head: "Mask2FormerSegmenter.Config", num_classes: int, pyramid_width: int):
        super().__init__(_mask2former_config(head, num_classes))
        config = self.config
        self.transformer = Mask2FormerTransformerModule(pyramid_width, config)
        self.transformer.position_embedder = _Float32Positions(config.hidden_dim // 2, normalize=True)
        self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.post_init()

    def forward(self, levels: list[Tensor], mask_features_BDHW: Tensor) -> tuple[Tensor, Tensor]:
        """`levels`: three maps, coarsest first. Return class and mask logits of every prediction."""
        output = self.transformer(levels, mask_features_BDHW)
        hidden_NQBD = torch.stack(output.intermediate_hidden_states)
        class_logits = self.class_predictor(hidden_NQBD.permute(2, 0, 1, 3))
        return class_logits, torch.stack(output.masks_queries_logits, dim=1)


class _Float32Positions(Mask2FormerSinePositionEmbedding):
    """Compute the sine code in float32: in bfloat16 neighbouring columns of a wide map get the same code."""

    def forward(self, shape, device, dtype, mask=None) -> Tensor:
        return super().forward(shape, device, torch.float32, mask).to(dtype)


def _mask2former_config(head: "Mask2FormerSegmenter.Config", num_classes: int) -> Mask2FormerConfig:
    """Say our sizes and weights in Mask2Former's names."""
    return Mask2FormerConfig(
        num_labels=num_classes,
        hidden_dim=head.width,
        mask_feature_size=head.width,
        decoder_layers=head.layers + 1,  # counts the prediction from the queries alone
        num_attention_heads=head.heads,
        dim_feedforward=head.feedforward,
        num_queries=head.num_queries,
        train_num_points=head.num_points,
        class_weight=head.class_weight,
        mask_weight=head.mask_weight,
        dice_weight=head.dice_weight,
        no_object_weight=head.no_object_weight,
        enforce_input_projection=True,
    )
