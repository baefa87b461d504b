"""Cut large images into overlapping tiles at test time and join the boxes found in them.

A sign 20 px wide in a 2048 px street scene vanishes when the scene is shrunk to the network's input; in a
tile it keeps its pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torchvision.ops import batched_nms

from ufo_large.structures import BoxPrediction, SampleInfo

EDGE_PX = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """A grid of `rows` x `columns` tiles that share at least `overlap` stored pixels with their neighbours.

    `whole` adds the whole image as one more tile, for objects larger than the overlap.
    """

    rows: int = 2
    columns: int = 2
    overlap: int = 128
    whole: bool = True

    def __post_init__(self):
        if min(self.rows, self.columns) < 1 or self.overlap < 0:
            raise ValueError(f"tiles: {self.rows} x {self.columns} with overlap {self.overlap} makes no grid")


@dataclass(frozen=True, kw_only=True, slots=True)
class TileSample(SampleInfo):
    """A tile posing as an image: `height, width` are the tile's; `source` is the image it was cut from.

    `top, left`: its corner in the source. `overlap`: pixels shared with its neighbours.
    """

    top: int
    left: int
    overlap: int
    source: SampleInfo


def tiles_of(sample: SampleInfo, tiling: Tiling) -> list[TileSample]:
    """Return the tiles of an image, row by row, then the whole image if wanted."""
    rows = _spans(sample.height, tiling.rows, tiling.overlap)
    columns = _spans(sample.width, tiling.columns, tiling.overlap)
    corners = [(top, left, height, width) for top, height in rows for left, width in columns]
    if tiling.whole and len(corners) > 1:
        corners.append((0, 0, sample.height, sample.width))
    return [_tile(sample, tiling.overlap, *corner) for corner in corners]


def _spans(length: int, count: int, overlap: int) -> list[tuple[int, int]]:
    """Return (start, size) of `count` equal spans that cover `length` and overlap by at least `overlap`."""
    size = min(length, -(-(length + (count - 1) * overlap) // count))
    starts = [round(i * (length - size) / max(1, count - 1)) for i in range(count)]
    return [(start, size) for start in dict.fromkeys(starts)]


def _tile(sample: SampleInfo, overlap: int, top: int, left: int, height: int, width: int) -> TileSample:
    return TileSample(
        key=sample.key,
        file_name=sample.file_name,
        image_id=sample.image_id,
        order=sample.order,
        height=height,
        width=width,
        top=top,
        left=left,
        overlap=overlap,
        source=sample,
    )


def merge_tiles(
    predictions: Iterable[BoxPrediction], iou_threshold: float = 0.5, max_boxes: int = 100
) -> list[BoxPrediction]:
    """Join the boxes of an image's tiles, in first-seen order; predictions of whole images pass through.

    A box cut by an inner edge of its tile is dropped when it is smaller than the overlap, because a neighbour
    sees it whole; what two tiles both found is settled by class-wise non-maximum suppression.
    """
    by_image: dict[SampleInfo, list[BoxPrediction]] = {}
    for prediction in predictions:
        source = prediction.sample.source if isinstance(prediction.sample, TileSample) else prediction.sample
        by_image.setdefault(source, []).append(prediction)
    return [_merge(source, found, iou_threshold, max_boxes) for source, found in by_image.items()]


def _merge(
    source: SampleInfo, found: list[BoxPrediction], iou_threshold: float, max_boxes: int
) -> BoxPrediction:
    if len(found) == 1 and not isinstance(found[0].sample, TileSample):
        return found[0]
    moved = [_in_source(prediction) for prediction in found]
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*moved, strict=True))
    kept = batched_nms(boxes.float(), scores.float(), labels, iou_threshold)[:max_boxes]
    return BoxPrediction(
        sample=source, boxes_xyxy_N4=boxes[kept], scores_N=scores[kept], labels_N=labels[kept]
    )


def _in_source(prediction: BoxPrediction):
    """Return boxes in the source image, scores and labels, without those an inner edge cut."""
    tile, boxes = prediction.sample, prediction.boxes_xyxy_N4
    cut = torch.zeros(len(boxes), dtype=torch.bool)
    for low, high, start, size, length in (
        (0, 2, tile.left, tile.width, tile.source.width),
        (1, 3, tile.top, tile.height, tile.source.height),
    ):
        small = boxes[:, high] - boxes[:, low] < tile.overlap - EDGE_PX
        if start > 0:
            cut |= small & (boxes[:, low] < EDGE_PX)
        if start + size < length:
            cut |= small & (boxes[:, high] > size - EDGE_PX)
    offset = boxes.new_tensor([tile.left, tile.top, tile.left, tile.top])
    return (boxes + offset)[~cut], prediction.scores_N[~cut], prediction.labels_N[~cut]
