"""Boxes between the network's input and the stored image: what the detection heads share."""

from dataclasses import replace

import torch
from torch import Tensor
from torchvision.ops import box_area, box_convert

from ufo_large.structures import BoxPrediction, BoxTargets, SampleInfo, TaskBatch
from ufo_large.tasks.finite import FiniteWatch


def finite_boxes(batch: TaskBatch, watch: FiniteWatch) -> BoxTargets:
    """Return the boxes of a batch in float32.

    `watch` notes boxes that are not finite; zeros take the place of their four coordinates.
    """
    boxes_N4 = batch.targets.boxes_xyxy_N4
    watch.note({"box targets": boxes_N4})
    finite_N1 = boxes_N4.isfinite().all(1, keepdim=True)
    return replace(batch.targets, boxes_xyxy_N4=torch.where(finite_N1, boxes_N4, 0).float())


def box_shares(targets: BoxTargets, extent: Tensor) -> BoxTargets:
    """Return boxes as DETRs predict them: cxcywh, as shares of `extent`."""
    return replace(targets, boxes_xyxy_N4=box_convert(targets.boxes_xyxy_N4, "xyxy", "cxcywh") / extent)


def best_queries(
    scores_BQK: Tensor, boxes_cxcywh_BQ4: Tensor, batch: TaskBatch, max_detections: int
) -> list[BoxPrediction]:
    """Return the best (query, class) pairs of each image; boxes come in input pixels."""
    found = best_pairs(scores_BQK, boxes_cxcywh_BQ4, max_detections)
    return [
        box_prediction(sample, tuple(size), boxes, scores, labels)
        for sample, size, boxes, scores, labels in zip(
            batch.samples, batch.sizes_B2.tolist(), *found, strict=True
        )
    ]


def best_pairs(
    scores_BQK: Tensor, boxes_cxcywh_BQ4: Tensor, max_detections: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes_xyxy [B, N, 4], scores [B, N] and labels [B, N] of the best (query, class) pairs."""
    num_queries, num_classes = scores_BQK.shape[1:]
    scores_BN, index_BN = scores_BQK.flatten(1).topk(min(max_detections, num_queries * num_classes), dim=1)
    boxes_BQ4 = box_convert(boxes_cxcywh_BQ4.float(), "cxcywh", "xyxy")
    return rows(boxes_BQ4, index_BN // num_classes), scores_BN, index_BN % num_classes


def rows(values_BN4: Tensor, index_BM: Tensor) -> Tensor:
    """Return the rows of each image that the index names, [B, M, 4]."""
    return values_BN4.gather(1, index_BM[..., None].expand(-1, -1, values_BN4.shape[-1]))


def graph_boxes(
    boxes_xyxy_BN4: Tensor, scores_BN: Tensor, labels_BN: Tensor, batch: TaskBatch
) -> dict[str, Tensor]:
    """Return `boxes` float32 [B, N, 4], `scores` float32 [B, N] and `labels` int64 [B, N] of a graph.

    Boxes are clipped to the valid part of the input; one of which nothing is left has the score 0.
    """
    boxes_BN4 = clipped(boxes_xyxy_BN4, batch.sizes_B2)
    sides_BN2 = boxes_BN4[..., 2:] - boxes_BN4[..., :2]
    scores_BN = torch.where(sides_BN2.amin(-1) > 0, scores_BN, 0.0)
    return {"boxes": boxes_BN4, "scores": scores_BN, "labels": labels_BN}


def clipped(boxes_xyxy_BN4: Tensor, sizes_B2: Tensor) -> Tensor:
    """Return boxes clipped to the (height, width) of their image."""
    limit_B14 = sizes_B2.flip(1).repeat(1, 2)[:, None].to(boxes_xyxy_BN4)
    return torch.minimum(boxes_xyxy_BN4.clamp(min=0), limit_B14)


def box_prediction(
    sample: SampleInfo, size: tuple[int, int], boxes_xyxy: Tensor, scores: Tensor, labels: Tensor
) -> BoxPrediction:
    """Carry boxes from input pixels, where the image measures `size` (height, width), to the stored image.

    Boxes are clipped to the image; those of which nothing is left are dropped. Best score first.
    """
    height, width = size
    scale = boxes_xyxy.new_tensor([sample.width / width, sample.height / height]).repeat(2)
    limit = boxes_xyxy.new_tensor([sample.width, sample.height]).repeat(2)
    boxes_xyxy = torch.minimum((boxes_xyxy * scale).clamp(min=0), limit)
    order = scores.argsort(descending=True, stable=True)
    order = order[box_area(boxes_xyxy)[order] > 0]
    return BoxPrediction(
        sample=sample,
        boxes_xyxy_N4=boxes_xyxy[order].float().cpu(),
        scores_N=scores[order].float().cpu(),
        labels_N=labels[order].cpu(),
    )


def covered_pixels(size: tuple[int, int], stride: int, device: torch.device) -> Tensor:
    """Return (width, height, width, height) in pixels of what a level covers."""
    height, width = size
    covered = torch.tensor([width, height, width, height]) * float(stride)
    return covered.to(device, non_blocking=True)
