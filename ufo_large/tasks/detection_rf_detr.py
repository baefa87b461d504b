"""Detect objects with RF-DETR's queries on one map of the trunk (arXiv:2511.09554), for a pretrained trunk.

Projector and decoder are transformers' own; matching and losses give what theirs give, for all layers and
images at once. It is LW-DETR (arXiv:2406.03459) with layer norms instead of batch norms, so that small
micro-batches and sharding are fine. Boxes of all decoder layers are offsets from one proposal each; queries
train in groups (Group DETR, arXiv:2207.13085).

Legend: B images, G groups of queries, Q queries per group, N decoder layers, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

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

_SUREST = 30.0  # a logit beyond which a probability is 1 in float64 too, and its logarithm infinite


class RFDETRDetector(TaskHead):
    """IoU-aware cross-entropy on classes, L1 and GIoU losses on boxes, summed over proposals and layers.

    Losses are divided by the number of boxes of this rank's micro-batch: the mean over ranks is then the
    mean over micro-batches. transformers' criterion would reduce that number over ranks instead.
    """

    kind = "detection"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(TaskHead.Config):
        """`stride`: the pyramid level that is read, in input pixels; None reads the trunk's own map.

        `num_queries`: most objects an image can yield. `groups`: copies of the queries while training.
        `heads` attend between queries, `cross_heads` with `points` each to the map.
        """

        stride: int | None = None
        width: int = 256
        layers: int = 3
        heads: int = 8
        cross_heads: int = 16
        points: int = 2
        feedforward: int = 2048
        dropout: float = 0.0
        num_queries: int = 300
        groups: int = 13
        max_detections: int = 100

        def __post_init__(self):
            counts = ("layers", "heads", "cross_heads", "points", "feedforward")
            for name in (*counts, "num_queries", "groups", "max_detections"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name}={getattr(self, name)}: choose 1 or more")
            if any(self.width % share for share in (4, self.heads, self.cross_heads)):
                raise ValueError(
                    f"width={self.width}: choose a multiple of 4, of heads={self.heads} and of "
                    f"cross_heads={self.cross_heads}"
                )

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "RFDETRDetector":
            return RFDETRDetector(self, info, pyramid_width if self.stride else trunk_width)

    def __init__(self, config: Config, info: TaskInfo, channels: int):
        super().__init__(info)
        # transformers takes seconds to import: only a run that uses this head pays.
        from ufo_large.tasks.rf_detr_decoder import RFDETRNetwork

        self.config = config
        self.strides = (config.stride,) if config.stride else ()
        self.network = RFDETRNetwork(config, info.num_classes, channels)

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return `logits` [B, 1 + N, G, Q, K] and `boxes` [B, 1 + N, G, Q, 4]: proposals, then every layer.

        Boxes are (centre x, centre y, width, height) as shares of `extent`, the pixels that the map covers.
        While not training there is one group.
        """
        stride = self.config.stride or features.stride
        map_BCHW = features.pyramid[stride] if self.strides else features.map_BDHW
        logits, boxes = self.network(map_BCHW)
        extent = covered_pixels(tuple(map_BCHW.shape[-2:]), stride, map_BCHW.device)
        return {"logits": logits, "boxes": boxes, "extent": extent}

    def losses(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `class`, `box` and `giou`."""
        outputs = self.watch.cleaned({name: out.float() for name, out in outputs.items()})
        config, groups = self.network.config, outputs["logits"].shape[2]
        targets = box_shares(finite_boxes(batch, self.watch), outputs["extent"])
        num_boxes = groups * max(1, len(targets.labels_N))
        # In float32 the logarithm of a probability is infinite from a logit of 17 on.
        logits_BRQK = outputs["logits"].flatten(1, 2).double().clamp(-_SUREST, _SUREST)
        costs = Costs(config.class_cost, config.bbox_cost, config.giou_cost)
        pairs = match(logits_BRQK, outputs["boxes"].flatten(1, 2), targets, costs)
        distance, giou = pairs.box_losses(num_boxes)
        classes = iou_aware_cross_entropy(logits_BRQK, pairs, config.focal_alpha) / num_boxes
        return self.watch.losses(
            {
                "class": config.class_loss_coefficient * classes.float(),
                "box": config.bbox_loss_coefficient * distance,
                "giou": config.giou_loss_coefficient * giou,
            }
        )

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: TaskBatch) -> list[BoxPrediction]:
        """Return the best (query, class) pairs of the last layer; no suppression of doubles is needed."""
        return best_queries(*_last_layer(outputs), batch, self.config.max_detections)

    def graph_outputs(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `boxes`, `scores` and `labels` of the best pairs, best first; see `graph_boxes`."""
        found = best_pairs(*_last_layer(outputs), self.config.max_detections)
        return graph_boxes(*found, batch)


def _last_layer(outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return scores [B, Q, K] and boxes [B, Q, 4], cxcywh in input pixels, of one group of queries."""
    scores_BQK = outputs["logits"][:, -1, 0].float().sigmoid()
    boxes_BQ4 = outputs["boxes"][:, -1, 0] * outputs["extent"]
    return scores_BQK, boxes_BQ4


def iou_aware_cross_entropy(logits_BRQK: Tensor, pairs: Pairs, alpha: float) -> Tensor:
    """Return LW-DETR's summed loss (arXiv:2406.03459, section 3.1): a match aims at score^a IoU^(1 - a)."""
    place_RM, score_BRQK = pairs.class_place_RM, logits_BRQK.sigmoid()
    iou_RM = pairs.overlaps()[0].to(logits_BRQK.dtype)
    quality_RM = (score_BRQK[place_RM].pow(alpha) * iou_RM.pow(1 - alpha)).clamp(min=0.01).detach()
    positive_BRQK = torch.zeros_like(logits_BRQK)
    positive_BRQK[place_RM] = quality_RM
    negative_BRQK = torch.where(positive_BRQK > 0, 1 - positive_BRQK, score_BRQK.square())
    return -(positive_BRQK * score_BRQK.log() + negative_BRQK * (1 - score_BRQK).log()).sum()
