"""Detect objects with queries that move over the pyramid (DETR family), for a pretrained trunk.

Decoder layers, matcher and losses are transformers' RT-DETR (arXiv:2304.08069). The trunk is the
encoder, as in LW-DETR (arXiv:2406.03459); queries start on the best-scoring cells (two-stage, with
learned content as in DINO, arXiv:2203.03605) and train in groups (Group DETR, arXiv:2207.13085).

Legend: B images, G groups of queries, Q queries a group, T = G Q, L pyramid cells of all levels,
D head width, N decoder layers, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ufo_large.structures import BoxPrediction, Features, TaskBatch, TaskInfo
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.box_targets import (
    best_pairs,
    best_queries,
    box_shares,
    boxes_by_image,
    covered_pixels,
    graph_boxes,
)

_LOSS_NAMES = {"loss_vfl": "class", "loss_bbox": "box", "loss_giou": "giou"}


class DETRDetector(TaskHead):
    """Varifocal loss on classes, L1 and GIoU losses on boxes, summed over decoder layers and proposals.

    Boxes are refined in float32 even where parameters are bfloat16, whose steps near 1 would be 4 pixels
    in 1,000. Losses are divided by the number of boxes of this rank's micro-batch: the mean over ranks
    is then the mean over micro-batches, with no extra collective.
    """

    kind = "detection"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(TaskHead.Config):
        """`num_queries`: most objects an image can yield. `groups`: copies of the queries while training."""

        strides: tuple[int, ...] = (4, 8, 16)
        width: int = 256
        layers: int = 6
        heads: int = 8
        points: int = 4
        feedforward: int = 1024
        dropout: float = 0.0
        num_queries: int = 300
        groups: int = 4
        max_detections: int = 100

        def __post_init__(self):
            if not self.strides or list(self.strides) != sorted(set(self.strides)):
                raise ValueError(f"strides={self.strides}: name at least one pyramid stride, finest first")
            if self.width % (4 * self.heads):
                raise ValueError(f"width={self.width}: choose a multiple of 4 * heads = {4 * self.heads}")
            for name in ("layers", "heads", "points", "num_queries", "groups", "max_detections"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name}={getattr(self, name)}: choose 1 or more")

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "DETRDetector":
            return DETRDetector(self, info, pyramid_width)

    def __init__(self, config: Config, info: TaskInfo, pyramid_width: int):
        super().__init__(info)
        # transformers takes seconds to import: only a run that uses this head pays.
        from ufo_large.tasks.detr_decoder import ProposalHead, QueryDecoder

        self.config = config
        self.strides = config.strides
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(pyramid_width, config.width, 1), nn.GroupNorm(config.heads, config.width))
            for _ in self.strides
        )
        self.propose = ProposalHead(config.width, info.num_classes)
        self.queries = nn.Embedding(config.groups * config.num_queries, config.width)
        self.decoder = QueryDecoder(config, info.num_classes)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return `logits` [B G, N, Q, K], `boxes` [B G, N, Q, 4]; `proposal_logits`, `proposal_boxes`: no N.

        Boxes are (centre x, centre y, width, height) as shares of `extent`, the pixels that the finest level
        covers. While not training there is one group.
        """
        maps = [project(features.pyramid[s]) for project, s in zip(self.project, self.strides, strict=True)]
        sizes = [tuple(map_BDHW.shape[-2:]) for map_BDHW in maps]
        memory_BLD = torch.cat([map_BDHW.flatten(2).transpose(1, 2) for map_BDHW in maps], dim=1)
        # A tiny input can have fewer cells than queries.
        num_queries = min(self.config.num_queries, memory_BLD.shape[1])
        groups = self.config.groups if self.training else 1
        found = self.propose(memory_BLD, sizes, self.strides, num_queries)
        index_T = torch.arange(num_queries, device=memory_BLD.device).repeat(groups)
        offset_T = torch.arange(groups, device=memory_BLD.device).repeat_interleave(num_queries)
        queries_TD = self.queries(index_T + offset_T * self.config.num_queries)
        logits, boxes = self.decoder(queries_TD, found["unrefined"], memory_BLD, sizes, self.strides, groups)
        return {
            "logits": logits,
            "boxes": boxes,
            "proposal_logits": found["logits"].repeat_interleave(groups, dim=0),
            "proposal_boxes": found["boxes"].repeat_interleave(groups, dim=0),
            "extent": covered_pixels(sizes[0], self.strides[0], memory_BLD.device),
        }

    def losses(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `class`, `box` and `giou`. Every group is matched on its own, as if it were an image."""
        from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss

        outputs = self.watch.cleaned({name: out.float() for name, out in outputs.items()})
        groups = len(outputs["logits"]) // len(batch)
        labels = [
            target
            for target in box_shares(boxes_by_image(batch, self.watch), outputs["extent"])
            for _ in range(groups)
        ]
        _, by_layer, _ = RTDetrForObjectDetectionLoss(
            outputs["logits"][:, -1],
            labels,
            outputs["logits"].device,
            outputs["boxes"][:, -1],
            self.decoder.config,
            outputs_class=outputs["logits"],
            outputs_coord=outputs["boxes"],
            enc_topk_logits=outputs["proposal_logits"],
            enc_topk_bboxes=outputs["proposal_boxes"],
        )
        losses = {
            short: sum(loss for name, loss in by_layer.items() if name.startswith(long))
            for long, short in _LOSS_NAMES.items()
        }
        return self.watch.losses(losses)

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: TaskBatch) -> list[BoxPrediction]:
        """Return the best (query, class) pairs of the last layer; no suppression of doubles is needed."""
        return best_queries(*_last_layer(outputs, batch), batch, self.config.max_detections)

    def graph_outputs(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `boxes`, `scores` and `labels` of the best pairs, best first; see `graph_boxes`."""
        found = best_pairs(*_last_layer(outputs, batch), self.config.max_detections)
        return graph_boxes(*found, batch)


def _last_layer(outputs: dict[str, Tensor], batch: TaskBatch) -> tuple[Tensor, Tensor]:
    """Return scores [B, Q, K] and boxes [B, Q, 4], cxcywh in input pixels, of one group of queries."""
    groups = outputs["logits"].shape[0] // batch.images_BCHW.shape[0]
    scores_BQK = outputs["logits"][::groups, -1].float().sigmoid()
    boxes_BQ4 = outputs["boxes"][::groups, -1].float() * outputs["extent"]
    return scores_BQK, boxes_BQ4
