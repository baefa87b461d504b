"""Cut large images into overlapping tiles at test time and join what is found in them.

A sign 20 px wide in a 2048 px street scene vanishes when the scene is shrunk to the network's input; in a
tile it keeps its pixels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from ufo_large.kinds import kind_of
from ufo_large.structures import Prediction, SampleInfo, TaskInfo, TileSample


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """A grid of `rows` x `columns` tiles that share at least `overlap` stored pixels with their neighbours.

    1 x 1 leaves images whole. `whole` adds the whole image as one more tile, for objects larger than the
    overlap, where the kind of task finds objects.
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
        kind = kind_of(info)
        if not kind.has_tiles:
            raise ValueError(
                f"task {info.name!r}: tiles {self.rows} x {self.columns}, but in {kind.name} an image is "
                "shown whole; give 1 x 1"
            )
        return self if kind.whole_tile else replace(self, whole=False)


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


def merge_tiles(info: TaskInfo, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Join what was found in an image's tiles, which come one after another."""
    for source, found in groupby(predictions, lambda prediction: prediction.sample.source):
        yield kind_of(info).merged(source, list(found))
