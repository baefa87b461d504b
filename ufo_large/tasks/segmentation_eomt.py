"""Label pixels with queries that pass through the trunk's own last blocks (EoMT, arXiv:2503.19108).

There is no decoder: a pretrained ViT can compare queries and patches itself, and a routed one does so with
the task's own experts. The original masks the queries' attention while training and anneals it to none; here
it is never masked. For a pretrained trunk.

Legend: B images, Q queries, D trunk width, K classes, H W height and width of a map.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ufo_large.structures import Features, Queries, TaskInfo
from ufo_large.tasks.mask_resize import check_label_range
from ufo_large.tasks.query_segmenter import QuerySegmenter

if TYPE_CHECKING:
    from transformers import EomtConfig


class EoMTSegmenter(QuerySegmenter):
    """transformers' mask head and enlargement; the trunk gives patches and queries."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(QuerySegmenter.Config):
        """`blocks`: how many of the trunk's last blocks see the queries. `enlargements`: doublings of the
        patch grid on which masks are predicted. `every_block`: while training, predict before each of
        these blocks too, and sum the losses, as the paper does.
        """

        blocks: int = 4
        enlargements: int = 2
        every_block: bool = False

        def __post_init__(self):
            QuerySegmenter.Config.__post_init__(self)
            if self.blocks < 1:
                raise ValueError(f"blocks={self.blocks}: choose 1 or more")
            if self.enlargements < 0:
                raise ValueError(f"enlargements={self.enlargements}: choose 0 or more")

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "EoMTSegmenter":
            return EoMTSegmenter(self, info, trunk_width)

    def __init__(self, config: Config, info: TaskInfo, trunk_width: int):
        super().__init__(info)
        check_label_range(info)
        # transformers takes seconds to import: only a run that uses this head pays.
        from transformers import EomtConfig
        from transformers.models.eomt.modeling_eomt import EomtMaskHead, EomtScaleBlock

        self.query_blocks, self.every_block = config.blocks, config.every_block
        self.eomt = EomtConfig(
            hidden_size=trunk_width,
            num_labels=info.num_classes,
            num_queries=config.num_queries,
            num_upscale_blocks=config.enlargements,
            train_num_points=config.num_points,
            class_weight=config.class_weight,
            mask_weight=config.mask_weight,
            dice_weight=config.dice_weight,
            no_object_weight=config.no_object_weight,
        )
        self.query = nn.Embedding(config.num_queries, trunk_width)
        self.upscale_block = EomtScaleBlock(self.eomt)
        self.mask_head = EomtMaskHead(self.eomt)
        self.class_predictor = nn.Linear(trunk_width, info.num_classes + 1)

    def trunk_queries(self) -> Queries:
        """Return them by calling their layer, because under ZeRO-3 they are whole only there."""
        tokens_QD = self.query(torch.arange(self.eomt.num_queries, device=self.query.weight.device))
        return Queries(tokens_QD, self.query_blocks, self.every_block)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return `class_logits` [B, N, Q, K + 1] (last: no object) and `mask_logits` [B, N, Q, H, W].

        N predictions, the last one after all blocks; just that one unless training with `every_block`.
        """
        self.mask_stride = features.stride / 2**self.eomt.num_upscale_blocks
        map_NBDHW, queries_NBQD = features.map_BDHW[None], features.queries_BQD[None]
        if features.earlier is not None:
            map_NBDHW = torch.cat([features.earlier[0], map_NBDHW])
            queries_NBQD = torch.cat([features.earlier[1], queries_NBQD])
        enlarged_NBDHW = self.upscale_block(map_NBDHW.flatten(0, 1)).unflatten(0, map_NBDHW.shape[:2])
        masks_BNQHW = torch.einsum("nbqd,nbdhw->bnqhw", self.mask_head(queries_NBQD), enlarged_NBDHW)
        class_logits_BNQK = self.class_predictor(queries_NBQD).transpose(0, 1)
        return {"class_logits": class_logits_BNQK, "mask_logits": masks_BNQHW}

    @property
    def loss_config(self) -> "EomtConfig":
        return self.eomt
