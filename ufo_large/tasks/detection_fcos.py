"""Detect objects at every cell of the pyramid (FCOS, Tian et al. 2020, arXiv:2006.09214).

Assignment and losses give what torchvision's give; suppression of doubles is its own. Learns fast from
scratch because every cell inside an object votes for it, where a DETR waits for its queries to specialise.

Legend: B images, P pyramid width, H W cells of a level, A cells of all levels, K classes.
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.ops import sigmoid_focal_loss

from ufo_large.losses import paired_overlaps
from ufo_large.structures import BoxPrediction, Features, TaskBatch, TaskInfo
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.box_targets import box_prediction, clipped, finite_boxes, graph_boxes, rows
from ufo_large.tasks.fcos_targets import cell_targets
from ufo_large.tasks.suppression import best_without_doubles

_INITIAL_REACH = 1.5  # first guess of the distance from a cell to each side of its box, in strides


class FCOSDetector(TaskHead):
    """Focal loss on classes, GIoU loss on boxes, cross-entropy on centerness.

    A level of stride s takes the objects whose farthest side is 4s to 8s away; the finest level takes
    everything smaller, the coarsest everything larger. So with strides (4, 8, 16) objects up to about 64
    pixels are found at stride 4; one narrower than 4 pixels can fall between the cells' centres and then
    teaches nothing.

    Each loss is divided by the number of positive cells of the micro-batch on this rank, as torchvision
    does. The mean over ranks is then the mean over micro-batches: two ranks give what one process gives
    that accumulates over the same two micro-batches, and no extra collective is needed; but an object in
    a sparse micro-batch weighs more than one in a crowded micro-batch.
    """

    kind = "detection"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(TaskHead.Config):
        """`width`: channels of the two towers (None: the pyramid's); `num_convs`: their depth.

        `prior`: probability of an object that every cell starts with (arXiv:1708.02002, section 3.3).
        `center_radius`: cells this many strides around an object's centre are positive. The last three
        shape predictions only.
        """

        strides: tuple[int, ...] = (4, 8, 16)
        width: int | None = None
        num_convs: int = 2
        prior: float = 0.01
        center_radius: float = 1.5
        score_threshold: float = 0.05
        nms_threshold: float = 0.6
        max_detections: int = 100

        def __post_init__(self):
            if not self.strides or list(self.strides) != sorted(set(self.strides)):
                raise ValueError(f"strides={self.strides}: name at least one pyramid stride, finest first")
            if any(coarse != 2 * fine for fine, coarse in pairwise(self.strides)):
                raise ValueError(
                    f"strides={self.strides}: each must be twice the one before, or objects of the sizes "
                    "between would teach nothing"
                )
            if self.max_detections < 1 or self.center_radius <= 0:
                raise ValueError("max_detections and center_radius: choose values above 0")
            if self.num_convs < 0:
                raise ValueError(f"num_convs={self.num_convs}: choose 0 or more")
            for name in ("prior", "score_threshold", "nms_threshold"):
                if not 0 < getattr(self, name) < 1:
                    raise ValueError(f"{name}={getattr(self, name)}: choose a value between 0 and 1")

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "FCOSDetector":
            return FCOSDetector(self, info, pyramid_width)

    def __init__(self, config: Config, info: TaskInfo, pyramid_width: int):
        super().__init__(info)
        self.strides = config.strides
        width = config.width or pyramid_width
        self.project = nn.Identity() if width == pyramid_width else nn.Conv2d(pyramid_width, width, 1)
        self.fcos = FCOS(
            _NoBackbone(),
            num_classes=info.num_classes,
            head=_Towers(width, info.num_classes, config),
            center_sampling_radius=config.center_radius,
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.max_detections,
        )

    def forward(self, features: Features) -> dict[str, Any]:
        """Return `cls_logits` [B, A, K], `bbox_regression` [B, A, 4] in strides, `bbox_ctrness` [B, A, 1].

        `grid` lists the (height, width) of each level in cells.
        """
        maps = [features.pyramid[stride] for stride in self.strides]
        outputs = self.fcos.head([self.project(map_BPHW) for map_BPHW in maps])
        outputs["grid"] = [tuple(map_BPHW.shape[-2:]) for map_BPHW in maps]
        return outputs

    def losses(self, outputs: dict[str, Any], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `class`, `box` and `centerness`."""
        cells_A4, cells_per_level = self._cells(outputs)
        boxes, radius = finite_boxes(batch, self.watch), self.fcos.center_sampling_radius
        targets = cell_targets(boxes, cells_A4, cells_per_level, len(batch), radius)
        found = _float_outputs(outputs)
        boxes_BA4 = self.fcos.box_coder.decode(found["bbox_regression"], cells_A4)
        is_object_BA, num_objects = targets.is_object_BA, targets.is_object_BA.sum().clamp(min=1)
        classes_K = torch.arange(self.info.num_classes, device=cells_A4.device)
        is_class_BAK = (targets.labels_BA[..., None] == classes_K) & is_object_BA[..., None]
        giou_BA = paired_overlaps(boxes_BA4, targets.boxes_xyxy_BA4)[1]
        centerness_BA = F.binary_cross_entropy_with_logits(
            found["bbox_ctrness"].squeeze(2), _centerness(targets.boxes_xyxy_BA4, cells_A4), reduction="none"
        )
        losses = {
            "class": sigmoid_focal_loss(found["cls_logits"], is_class_BAK.float(), reduction="sum"),
            "box": ((1 - giou_BA) * is_object_BA).sum(),
            "centerness": (centerness_BA * is_object_BA).sum(),
        }
        return self.watch.losses({name: loss / num_objects for name, loss in losses.items()})

    @torch.no_grad()
    def predict(self, outputs: dict[str, Any], batch: TaskBatch) -> list[BoxPrediction]:
        cells, cells_per_level = self._cells(outputs)
        by_level = {name: out.split(cells_per_level, dim=1) for name, out in _float_outputs(outputs).items()}
        cells_by_level = cells.split(cells_per_level)
        sizes = [tuple(size) for size in batch.sizes_B2.tolist()]
        found = self.fcos.postprocess_detections(by_level, [cells_by_level] * len(batch), sizes)
        return [
            box_prediction(sample, size, f["boxes"], f["scores"], f["labels"])
            for sample, size, f in zip(batch.samples, sizes, found, strict=True)
        ]

    def graph_outputs(self, outputs: dict[str, Any], batch: TaskBatch) -> dict[str, Tensor]:
        """Return `boxes`, `scores` and `labels` as `predict` finds them; see `graph_boxes`."""
        cells, cells_per_level = self._cells(outputs)
        names = ("cls_logits", "bbox_regression", "bbox_ctrness")
        parts = (outputs[name].float().split(cells_per_level, dim=1) for name in names)
        by_level = zip(cells.split(cells_per_level), *parts, strict=True)
        boxes, scores, labels = zip(*(self._candidates(*level) for level in by_level), strict=True)
        found = best_without_doubles(
            clipped(torch.cat(boxes, 1), batch.sizes_B2),
            torch.cat(scores, 1),
            torch.cat(labels, 1),
            self.info.num_classes,
            self.fcos.nms_thresh,
            self.fcos.detections_per_img,
        )
        return graph_boxes(*found, batch)

    def _candidates(
        self, cells_A4: Tensor, logits_BAK: Tensor, distances_BA4: Tensor, centerness_BA1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, scores and labels of a level's best (cell, class) pairs; 0 is a score too low."""
        num_cells, num_classes = logits_BAK.shape[1:]
        scores_BN = (logits_BAK.sigmoid() * centerness_BA1.sigmoid()).sqrt().flatten(1)
        most = min(self.fcos.topk_candidates, num_cells * num_classes)
        scores_BN, index_BN = scores_BN.topk(most, dim=1)
        cell_BN = index_BN // num_classes
        boxes_BN4 = self.fcos.box_coder.decode(rows(distances_BA4, cell_BN), cells_A4[cell_BN])
        scores_BN = torch.where(scores_BN > self.fcos.score_thresh, scores_BN, 0.0)
        return boxes_BN4, scores_BN, index_BN % num_classes

    def _cells(self, outputs: dict[str, Any]) -> tuple[Tensor, list[int]]:
        """Return every cell as a box in input pixels [A, 4] and the number of cells a level.

        A cell is the pixels its feature was made of, so its centre is at (i + 1/2) stride; torchvision's
        own generator would put it at i stride.
        """
        device = outputs["cls_logits"].device
        cells = [_tiles(*grid, s, device) for grid, s in zip(outputs["grid"], self.strides, strict=True)]
        return torch.cat(cells), [len(level) for level in cells]


def _tiles(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Return the cells of a grid as boxes, row by row, [A, 4]."""
    top, left = torch.meshgrid(
        torch.arange(height, device=device) * float(stride),
        torch.arange(width, device=device) * float(stride),
        indexing="ij",
    )
    return torch.stack([left, top, left + stride, top + stride], dim=-1).reshape(-1, 4)


def _centerness(boxes_BA4: Tensor, cells_A4: Tensor) -> Tensor:
    """Return how central a cell is in its box (arXiv:2006.09214, equation 3), 1 in the middle, [B, A]."""
    centres_A2 = (cells_A4[:, :2] + cells_A4[:, 2:]) / 2
    before_BA2, after_BA2 = centres_A2 - boxes_BA4[..., :2], boxes_BA4[..., 2:] - centres_A2
    share_BA2 = torch.minimum(before_BA2, after_BA2) / torch.maximum(before_BA2, after_BA2)
    return (share_BA2[..., 0] * share_BA2[..., 1]).sqrt()


def _float_outputs(outputs: dict[str, Any]) -> dict[str, Tensor]:
    return {name: out.float() for name, out in outputs.items() if isinstance(out, Tensor)}


class _NoBackbone(nn.Module):
    """Stands where torchvision's FCOS wants a backbone; its forward is never called."""

    out_channels = 0


class _Towers(FCOSHead):
    """torchvision's two towers at any width, with box distances that cannot get stuck.

    torchvision's distances are relu(x): once all are 0 no gradient brings them back, which happens within
    ten steps on small objects. Ours are softplus(x), which its relu then leaves as they are.
    """

    def __init__(self, width: int, num_classes: int, config: FCOSDetector.Config):
        nn.Module.__init__(self)
        norm = partial(nn.GroupNorm, math.gcd(32, width))
        self.box_coder = BoxLinearCoder(normalize_by_size=True)
        self.classification_head = FCOSClassificationHead(
            width, 1, num_classes, config.num_convs, config.prior, norm_layer=norm
        )
        self.regression_head = FCOSRegressionHead(width, 1, config.num_convs, norm_layer=norm)
        distances = self.regression_head.bbox_reg
        nn.init.constant_(distances.bias, math.log(math.expm1(_INITIAL_REACH)))
        self.regression_head.bbox_reg = nn.Sequential(distances, nn.Softplus())
