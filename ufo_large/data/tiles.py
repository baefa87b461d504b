"""Cut large images into overlapping tiles at test time and join what is found in them.

A sign 20 px wide in a 2048 px street scene vanishes when the scene is shrunk to the network's input; in a
tile it keeps its pixels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torchvision.ops import batched_nms

from ufo_large.structures import BoxPrediction, MaskPrediction, Prediction, SampleInfo, TaskInfo

EDGE_PX = 2.0
IOU_THRESHOLD = 0.5
MAX_BOXES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """A grid of `rows` x `columns` tiles that share at least `overlap` stored pixels with their neighbours.

    1 x 1 leaves images whole. `whole` adds the whole image as one more tile, for objects larger than the
    overlap; detection only.
    """

    rows: int = 1
    columns: int = 1
    overlap: int = 128
    whole: bool = True

    def __post_init__(self):
        if min(self.rows, self.columns) < 1 or self.overlap < 0:
            raise ValueError(f"tiles: {self.rows} x {self.columns} with overlap {self.overlap} makes no grid")

    def for_task(self, info: TaskInfo) -> "Tiling | None":
        """Return the tiles of a task, None where images stay whole. ValueError where they make no sense."""
        if self.rows == self.columns == 1:
            return None
        if info.kind == "classification":
            raise ValueError(
                f"task {info.name!r}: tiles {self.rows} x {self.columns}, but a classified image is one; "
                "give 1 x 1"
            )
        return self if info.kind == "detection" else replace(self, whole=False)


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


def merge_tiles(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Join what was found in an image's tiles, which come one after another.

    A box cut by an inner edge of its tile is dropped when it is smaller than the overlap, because a neighbour
    sees it whole; what two tiles both found is settled by class-wise non-maximum suppression, and the best
    `MAX_BOXES` stay. Masks are joined in the middle of the overlap.
    """
    for source, found in groupby(predictions, lambda prediction: prediction.sample.source):
        parts = list(found)
        yield (_merge_masks if isinstance(parts[0], MaskPrediction) else _merge_boxes)(source, parts)


def _merge_masks(source: SampleInfo, found: list[MaskPrediction]) -> MaskPrediction:
    """Paste the tiles; each leaves half of what it shares with the one above or left of it to that one."""
    mask_HW = found[0].mask_HW.new_zeros(source.height, source.width)
    rows, columns = sorted({p.sample.top for p in found}), sorted({p.sample.left for p in found})
    for prediction in found:
        tile = prediction.sample
        skip_y = _half_shared(rows, tile.top, tile.height)
        skip_x = _half_shared(columns, tile.left, tile.width)
        area = mask_HW[
            tile.top + skip_y : tile.top + tile.height, tile.left + skip_x : tile.left + tile.width
        ]
        area.copy_(prediction.mask_HW[skip_y:, skip_x:])
    return MaskPrediction(sample=source, mask_HW=mask_HW)


def _half_shared(starts: list[int], start: int, size: int) -> int:
    """Return half of the pixels that the tile at `start` shares with the one before it, along one side."""
    before = [s for s in starts if s < start]
    return (before[-1] + size - start) // 2 if before else 0


def _merge_boxes(source: SampleInfo, found: list[BoxPrediction]) -> BoxPrediction:
    moved = [_in_source(prediction) for prediction in found]
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*moved, strict=True))
    kept = batched_nms(boxes.float(), scores.float(), labels, IOU_THRESHOLD)[:MAX_BOXES]
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
