"""The network inside the RF-DETR head: its projector, its proposals and its decoder, without its backbone.

Legend: B images, C map channels, G groups of queries, Q queries per group, T = G Q, L map cells, D head
width, N decoder layers, K classes.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import RfDetrConfig
from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config
from transformers.models.rf_detr.modeling_rf_detr import (
    RfDetrDecoder,
    RfDetrMLPPredictionHead,
    RfDetrModel,
    RfDetrPreTrainedModel,
    RfDetrScaleProjector,
    encode_sinusoidal_position_embedding,
    refine_bboxes,
)

from ufo_large.tasks.detr_decoder import Float32Sampling
from ufo_large.tasks.sharding import InitialisedAsPublished, is_whole

if TYPE_CHECKING:
    from ufo_large.tasks.detection_rf_detr import RFDETRDetector

_PRIOR = 0.01  # probability of an object that every query and cell starts with, as published


class RFDETRNetwork(InitialisedAsPublished, RfDetrPreTrainedModel):
    """`RfDetrForObjectDetection` from the backbone's map on, its parameters under the same names.

    Differences from its own forward pass: boxes are float32 under bfloat16 parameters; a map with fewer
    cells than queries works; learned queries are looked up by calling their layer, because under ZeRO-3
    they are whole only there.
    """

    def __init__(self, head: "RFDETRDetector.Config", num_classes: int, channels: int):
        super().__init__(_rf_detr_config(head, num_classes, channels))
        width, groups = head.width, range(head.groups)
        self.projector = RfDetrScaleProjector(self.config)
        self.enc_output = nn.ModuleList(nn.Linear(width, width) for _ in groups)
        self.enc_output_norm = nn.ModuleList(nn.LayerNorm(width) for _ in groups)
        self.enc_out_class_embed = nn.ModuleList(nn.Linear(width, num_classes) for _ in groups)
        self.enc_out_bbox_embed = nn.ModuleList(_box_layers(width) for _ in groups)
        self.reference_point_embed = nn.Embedding(head.groups * head.num_queries, 4)
        self.query_feat = nn.Embedding(head.groups * head.num_queries, width)
        self.decoder = _Decoder(self.config)
        self.class_embed = nn.Linear(width, num_classes)
        self.bbox_embed = _box_layers(width)
        self.post_init()
        self._start_like_the_original()

    @torch.no_grad()
    def _start_like_the_original(self) -> None:
        """Leave proposals where they are and find nothing likely, as transformers does in `RfDetrModel`."""
        for classes, box in zip(self.enc_out_class_embed, self.enc_out_bbox_embed, strict=True):
            if is_whole(classes):
                nn.init.constant_(classes.bias, -math.log((1 - _PRIOR) / _PRIOR))
                nn.init.zeros_(box.layers[-1].weight)
                nn.init.zeros_(box.layers[-1].bias)
        if is_whole(self.reference_point_embed):
            nn.init.zeros_(self.reference_point_embed.weight)

    def forward(self, map_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, 1 + N, G, Q, K] and boxes [B, 1 + N, G, Q, 4]: the proposals, then every layer.

        Boxes are (centre x, centre y, width, height) as shares of the map. While not training there is one
        group.
        """
        map_BDHW = self.projector((map_BCHW,))
        size, memory_BLD = map_BDHW.shape[-2:], map_BDHW.flatten(2).transpose(1, 2)
        groups = self.config.group_detr if self.training else 1
        num_queries = min(self.config.num_queries, memory_BLD.shape[1])
        first_logits, first_boxes = self._propose(memory_BLD, size, groups, num_queries)

        index_T = torch.arange(groups * num_queries, device=map_BDHW.device)
        index_T = index_T + index_T // num_queries * (self.config.num_queries - num_queries)
        boxes_BT4 = refine_bboxes(first_boxes.detach(), self.reference_point_embed(index_T).float())
        hidden_NBTD = self.decoder(
            inputs_embeds=self.query_feat(index_T).expand(map_BDHW.shape[0], -1, -1),
            reference_points=boxes_BT4,
            spatial_shapes_list=[tuple(size)],
            encoder_hidden_states=memory_BLD,
        ).intermediate_hidden_states
        logits = torch.cat([first_logits[None], self.class_embed(hidden_NBTD)])
        boxes = torch.cat([first_boxes[None], refine_bboxes(boxes_BT4, self.bbox_embed(hidden_NBTD).float())])
        return tuple(x.transpose(0, 1).unflatten(2, (groups, num_queries)) for x in (logits, boxes))

    def _propose(
        self, memory_BLD: Tensor, size: tuple[int, int], groups: int, num_queries: int
    ) -> tuple[Tensor, Tensor]:
        """Return each group's best-scoring cells: logits [B, T, K] and boxes [B, T, 4]."""
        outside_BL = torch.zeros(memory_BLD.shape[:2], dtype=torch.bool, device=memory_BLD.device)
        cells_BLD, squares_BL4, invalid_BL1 = RfDetrModel.gen_encoder_output_proposals(
            self, memory_BLD.float(), outside_BL, [size]
        )
        cells_BLD = cells_BLD.to(memory_BLD.dtype)
        logits, boxes = [], []
        for g in range(groups):
            own_BLD = self.enc_output_norm[g](self.enc_output[g](cells_BLD))
            logits_BLK = self.enc_out_class_embed[g](own_BLD)
            score_BL = logits_BLK.amax(-1).masked_fill(invalid_BL1.squeeze(-1), -math.inf)
            index_BQ1 = score_BL.topk(num_queries, dim=1).indices.unsqueeze(-1)
            logits.append(logits_BLK.gather(1, index_BQ1.expand(-1, -1, logits_BLK.shape[-1])))
            boxes_BL4 = refine_bboxes(squares_BL4, self.enc_out_bbox_embed[g](own_BLD).float())
            boxes.append(boxes_BL4.gather(1, index_BQ1.expand(-1, -1, 4)))
        return torch.cat(logits, dim=1), torch.cat(boxes, dim=1)


class _Decoder(InitialisedAsPublished, RfDetrDecoder):
    """RF-DETR's decoder, whose reference boxes stay float32."""

    def __init__(self, config: RfDetrConfig):
        super().__init__(config)
        for layer in self.layers:
            layer.cross_attn.attn = Float32Sampling()

    def get_reference(self, reference_BT4: Tensor, valid_ratios: None) -> tuple[Tensor, Tensor]:
        code = encode_sinusoidal_position_embedding(reference_BT4, self.config.d_model // 2)
        return reference_BT4.unsqueeze(2), self.ref_point_head(code.to(self.dtype))


def _box_layers(width: int) -> RfDetrMLPPredictionHead:
    return RfDetrMLPPredictionHead(width, width, 4, num_layers=3)


def _rf_detr_config(head: "RFDETRDetector.Config", num_classes: int, channels: int) -> RfDetrConfig:
    """Say our sizes in RF-DETR's names; what is not named, its loss weights among it, is as published."""
    one_map = RfDetrDinov2Config(
        hidden_size=channels, num_attention_heads=1, num_hidden_layers=1, out_indices=[1]
    )
    return RfDetrConfig(
        backbone_config=one_map,
        num_labels=num_classes,
        d_model=head.width,
        decoder_layers=head.layers,
        decoder_self_attention_heads=head.heads,
        decoder_cross_attention_heads=head.cross_heads,
        decoder_n_points=head.points,
        decoder_ffn_dim=head.feedforward,
        num_queries=head.num_queries,
        group_detr=head.groups,
        dropout=head.dropout,
    )
