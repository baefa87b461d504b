"""The two networks inside the DETR head: first guesses on the pyramid, and the decoder that refines them.

Legend: B images, G groups of queries, Q queries a group, T = G Q, L pyramid cells of all levels,
S levels, D width, N decoder layers, K classes.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import RTDetrConfig
from transformers.models.lw_detr.modeling_lw_detr import encode_sinusoidal_position_embedding
from transformers.models.rt_detr.modeling_rt_detr import (
    MultiScaleDeformableAttention,
    RTDetrDecoder,
    RTDetrMLPPredictionHead,
    inverse_sigmoid,
)

from ufo_large.tasks.box_targets import covered_pixels
from ufo_large.tasks.sharding import InitialisedAsPublished

if TYPE_CHECKING:
    from ufo_large.tasks.detection_detr import DETRDetector

_PRIOR = 0.01  # probability of an object that every query starts with (arXiv:1708.02002, section 3.3)
_LARGEST_SIDE = 0.95
_PROPOSAL_STRIDES = 5.0  # a proposal starts as a square of this many strides


class ProposalHead(nn.Module):
    """Score every pyramid cell and give the best ones a first box."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.normalise = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.score = _class_layer(width, num_classes)
        self.box = _box_layers(width)

    def forward(
        self,
        memory_BLD: Tensor,
        sizes: list[tuple[int, int]],
        strides: tuple[int, ...],
        num_queries: int,
    ) -> dict[str, Tensor]:
        """Return `logits` [B, Q, K], `boxes` [B, Q, 4] as shares of the input, and `unrefined`.

        `unrefined` is the inverse sigmoid of the boxes, detached: where the decoder starts.
        """
        memory_BLD = self.normalise(memory_BLD)
        logits_BLK = self.score(memory_BLD)
        index_BQ1 = logits_BLK.amax(dim=-1).topk(num_queries, dim=1).indices.unsqueeze(-1)
        cells_L4 = inverse_sigmoid(_squares(sizes, strides, memory_BLD.device))
        cells_BQ4 = cells_L4[index_BQ1.squeeze(-1)]
        best_BQD = memory_BLD.gather(1, index_BQ1.expand(-1, -1, memory_BLD.shape[-1]))
        unrefined_BQ4 = self.box(best_BQD).float() + cells_BQ4
        return {
            "logits": logits_BLK.gather(1, index_BQ1.expand(-1, -1, logits_BLK.shape[-1])),
            "boxes": unrefined_BQ4.sigmoid(),
            "unrefined": unrefined_BQ4.detach(),
        }


class QueryDecoder(InitialisedAsPublished, RTDetrDecoder):
    """transformers' RT-DETR decoder layers with boxes kept in float32.

    Differences from its own loop: reference boxes stay float32 under bfloat16 parameters; a query's
    position is a sine code of its box (DAB-DETR, arXiv:2201.12329), computed in float32; queries attend
    to their own group only.
    """

    def __init__(self, head: "DETRDetector.Config", num_classes: int):
        super().__init__(_rt_detr_config(head, num_classes))
        width = head.width
        self.query_pos_head = RTDetrMLPPredictionHead(2 * width, width, width, num_layers=2)
        self.class_embed = nn.ModuleList(_class_layer(width, num_classes) for _ in self.layers)
        self.bbox_embed = nn.ModuleList(_box_layers(width) for _ in self.layers)
        for layer in self.layers:
            layer.encoder_attn.attn = Float32Sampling()

    def forward(
        self,
        queries_TD: Tensor,
        unrefined_BQ4: Tensor,
        memory_BLD: Tensor,
        sizes: list[tuple[int, int]],
        strides: tuple[int, ...],
        groups: int,
    ) -> tuple[Tensor, Tensor]:
        """Return logits [B G, N, Q, K] and boxes [B G, N, Q, 4] of every layer."""
        hidden_BTD = queries_TD.to(memory_BLD.dtype).expand(memory_BLD.shape[0], -1, -1)
        unrefined_BT4 = unrefined_BQ4.repeat(1, groups, 1)
        mask_TT = _same_group(groups, unrefined_BQ4.shape[1], memory_BLD.device) if groups > 1 else None
        per_level_S4 = _finest_over_level(sizes, strides, memory_BLD.device)
        logits, boxes = [], []
        for layer, to_class, to_box in zip(self.layers, self.class_embed, self.bbox_embed, strict=True):
            reference_BT4 = unrefined_BT4.sigmoid()
            code = encode_sinusoidal_position_embedding(reference_BT4, self.config.d_model // 2)
            hidden_BTD = layer(
                hidden_BTD,
                object_queries_position_embeddings=self.query_pos_head(code.to(memory_BLD.dtype)),
                reference_points=reference_BT4.unsqueeze(2) * per_level_S4,
                spatial_shapes_list=sizes,
                encoder_hidden_states=memory_BLD,
                encoder_attention_mask=mask_TT,
            )
            refined_BT4 = unrefined_BT4 + to_box(hidden_BTD).float()
            logits.append(_groups_as_images(to_class(hidden_BTD), groups))
            boxes.append(_groups_as_images(refined_BT4.sigmoid(), groups))
            unrefined_BT4 = refined_BT4.detach()
        return torch.stack(logits, dim=1), torch.stack(boxes, dim=1)


class Float32Sampling(MultiScaleDeformableAttention):
    """Sample at float32 positions whatever the features' dtype: bfloat16 positions are pixels off."""

    def forward(self, value: Tensor, *arguments, **keywords) -> Tensor:
        return super().forward(value.float(), *arguments, **keywords).to(value.dtype)


def _rt_detr_config(head: "DETRDetector.Config", num_classes: int) -> RTDetrConfig:
    """Say our sizes in RT-DETR's names; what is not named, its loss weights among it, is as published."""
    return RTDetrConfig(
        num_labels=num_classes,
        num_feature_levels=len(head.strides),
        d_model=head.width,
        decoder_layers=head.layers,
        decoder_attention_heads=head.heads,
        decoder_n_points=head.points,
        decoder_ffn_dim=head.feedforward,
        dropout=head.dropout,
    )


def _class_layer(width: int, num_classes: int) -> nn.Linear:
    layer = nn.Linear(width, num_classes)
    nn.init.normal_(layer.weight, std=width**-0.5)
    nn.init.constant_(layer.bias, -math.log((1 - _PRIOR) / _PRIOR))
    return layer


def _box_layers(width: int) -> RTDetrMLPPredictionHead:
    """An MLP that starts at zero: a box is first left where it is."""
    mlp = RTDetrMLPPredictionHead(width, width, 4, num_layers=3)
    nn.init.zeros_(mlp.layers[-1].weight)
    nn.init.zeros_(mlp.layers[-1].bias)
    return mlp


def _finest_over_level(
    sizes: list[tuple[int, int]], strides: tuple[int, ...], device: torch.device
) -> Tensor:
    """Return what turns shares of the finest level into shares of each level, [S, 4].

    Levels round up to whole cells, so a coarse one can cover more.
    """
    covered = torch.stack([covered_pixels(*level, device) for level in zip(sizes, strides, strict=True)])
    return covered[0] / covered


def _squares(sizes: list[tuple[int, int]], strides: tuple[int, ...], device: torch.device) -> Tensor:
    """Return a square around every cell, [L, 4]: centre x, y, width, height as shares of the finest level."""
    squares = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        y, x = torch.meshgrid(
            (torch.arange(height, device=device) + 0.5) * stride,
            (torch.arange(width, device=device) + 0.5) * stride,
            indexing="ij",
        )
        side = torch.full_like(x, _PROPOSAL_STRIDES * stride)
        squares.append(torch.stack([x, y, side, side], dim=-1).reshape(-1, 4))
    shares_L4 = torch.cat(squares) / covered_pixels(sizes[0], strides[0], device)
    # A side of the whole image or more has no inverse sigmoid to start from.
    return torch.cat([shares_L4[:, :2], shares_L4[:, 2:].clamp(max=_LARGEST_SIDE)], dim=1)


def _same_group(groups: int, num_queries: int, device: torch.device) -> Tensor:
    """Return [T, T], true where two queries belong to one group."""
    group_T = torch.arange(groups, device=device).repeat_interleave(num_queries)
    return group_T[:, None] == group_T[None, :]


def _groups_as_images(x: Tensor, groups: int) -> Tensor:
    """[B, G Q, C] -> [B G, Q, C]."""
    return x.reshape(x.shape[0] * groups, x.shape[1] // groups, x.shape[2])
