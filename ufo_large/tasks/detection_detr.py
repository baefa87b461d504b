"""Detect objects with queries that move over the pyramid (DETR family), for a pretrained trunk.

Decoder layers are transformers' RT-DETR (arXiv:2304.08069); matching and losses give what theirs give, for
all layers and images at once. The trunk is the encoder, as in LW-DETR (arXiv:2406.03459); queries start on
the best-scoring cells (two-stage, with learned content as in DINO, arXiv:2203.03605) and train in groups
(Group DETR, arXiv:2207.13085).

Legend: B images, G groups of queries, Q queries a group, T = G Q, L pyramid cells of all levels,
D head width, N decoder layers, K classes, R matchings of an image (groups and predictions), M pairs of one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ufo_large.structures import BoxPrediction, Features, TaskBatch, TaskInfo
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.box_matching import Costs, Pairs, match
from ufo_large.tasks.box_targets import (
    best_pairs,
    best_queries,
    box_shares,
    covered_pixels,
    finite_boxes,
    graph_boxes,
)


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
        outputs = self.watch.cleaned({name: out.float() for name, out in outputs.items()})
        logits_BRQK, boxes_BRQ4 = (_matchings(outputs, name, len(batch)) for name in ("logits", "boxes"))
        targets = box_shares(finite_boxes(batch, self.watch), outputs["extent"])
        config, groups = self.decoder.config, len(outputs["logits"]) // len(batch)
        num_boxes = groups * max(1, len(targets.labels_N))
        costs = Costs(config.matcher_class_cost, config.matcher_bbox_cost, config.matcher_giou_cost)
        pairs = match(logits_BRQK, boxes_BRQ4, targets, costs)
        distance, giou = pairs.box_losses(num_boxes)
        classes = varifocal(logits_BRQK, pairs, config.focal_loss_alpha, config.focal_loss_gamma) / num_boxes
        return self.watch.losses(
            {
                "class": config.weight_loss_vfl * classes,
                "box": config.weight_loss_bbox * distance,
                "giou": config.weight_loss_giou * giou,
            }
        )

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


def _matchings(outputs: dict[str, Tensor], name: str, images: int) -> Tensor:
    """Return every layer's outputs and the proposals, a matching for each group: [B, R, Q, K or 4]."""
    both = torch.cat([outputs[name], outputs[f"proposal_{name}"][:, None]], dim=1)
    return both.unflatten(0, (images, -1)).flatten(1, 2)


def varifocal(logits_BRQK: Tensor, pairs: Pairs, alpha: float, gamma: float) -> Tensor:
    """Return the summed varifocal loss (arXiv:2008.13367, equation 2): a matched query aims at its IoU."""
    place_RM = pairs.class_place_RM
    score_BRQK, is_true_BRQK = torch.zeros_like(logits_BRQK), torch.zeros_like(logits_BRQK)
    score_BRQK[place_RM] = pairs.overlaps()[0].detach()
    is_true_BRQK[place_RM] = 1.0
    weight_BRQK = alpha * logits_BRQK.detach().sigmoid().pow(gamma) * (1 - is_true_BRQK) + score_BRQK
    return F.binary_cross_entropy_with_logits(logits_BRQK, score_BRQK, weight=weight_BRQK, reduction="sum")
