"""Batches for evaluation: every sample exactly once over all ranks, resized only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from ufo_large.data.collate import collate
from ufo_large.data.errors import DataError
from ufo_large.data.loader import as_is, quiet_worker
from ufo_large.data.shards import SplitReader
from ufo_large.data.tiles import Tiling, tiles_of
from ufo_large.data.transforms.base import View
from ufo_large.data.transforms.window import fit, load, scaled
from ufo_large.structures import BadSample, SampleInfo, TaskBatch, TaskInfo, Window


def evaluation_batches(
    reader: SplitReader,
    info: TaskInfo,
    *,
    image_size: tuple[int, int],
    micro_batch: int,
    rank: int,
    world_size: int,
    workers: int = 0,
    tiles: Tiling | None = None,
    keep_aspect: bool = False,
) -> Iterator[TaskBatch]:
    """Yield this rank's share of the split, on canvases of `image_size` (height, width).

    All ranks yield the same number of batches, as collective operations need. When the samples do not
    suffice for that, a rank's last batch has one black image and no `samples`: run the model on it and drop
    the output. Tiles of an image stay on one rank, carry `TileSample`s and no targets; join their boxes
    with `merge_tiles`. Raises DataError naming the file for an unreadable sample.
    """
    per_image = 1 if tiles is None else len(tiles_of(reader.sample(0), tiles)) if len(reader) else 1
    chunks = rank_chunks(len(reader), max(1, micro_batch // per_image), rank, world_size)
    found = DataLoader(
        _Batches(reader, info, chunks, image_size, tiles, keep_aspect),
        batch_size=None,
        num_workers=workers,
        collate_fn=as_is,
        worker_init_fn=quiet_worker,
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
    )
    for batch in found:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def rank_chunks(count: int, chunk: int, rank: int, world_size: int) -> list[range]:
    """Cut 0..count-1 into chunks of `chunk` and deal them out in turn; every rank gets equally many.

    The cuts do not depend on the number of ranks, because a batch's numbers can depend on who else
    is in it: so several ranks predict bitwise what one predicts. A rank's last chunk may be empty.
    """
    chunks = [range(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    rounds = -(-len(chunks) // world_size)
    return (chunks + [range(0)] * (rounds * world_size - len(chunks)))[rank::world_size]


@dataclass(frozen=True, slots=True)
class _Batches(Dataset):
    reader: SplitReader
    info: TaskInfo
    chunks: Sequence[range]
    canvas: tuple[int, int]
    tiles: Tiling | None
    keep_aspect: bool

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, position: int) -> TaskBatch | DataError:
        if position >= len(self.chunks):
            raise IndexError(position)
        if not len(self.chunks[position]):
            return _filler(self.info, self.canvas)
        try:
            loaded = [pair for index in self.chunks[position] for pair in self._load(index)]
        except DataError as error:
            return error
        views, samples = zip(*loaded, strict=True)
        return collate(self.info, views, samples, self.canvas)

    def _load(self, index: int) -> list[tuple[View, SampleInfo]]:
        raw = self.reader.read(index)
        views = [raw.sample] if self.tiles is None else tiles_of(raw.sample, self.tiles)
        try:
            loaded = [(load(raw, self._window(view), self.info), view) for view in views]
        except BadSample as error:
            raise DataError(
                f"{raw.sample.file_name} in {self.reader.shard_of(index)}: {error}; "
                "evaluation skips nothing: repair the file and make the shards again"
            ) from None
        if self.tiles is None:
            return loaded
        return [(View(image=shown.image), view) for shown, view in loaded]

    def _window(self, view: SampleInfo) -> Window:
        factor_y, factor_x = fit(view.height, view.width, self.canvas, self.keep_aspect)
        out = scaled(view.height, factor_y, self.canvas[0]), scaled(view.width, factor_x, self.canvas[1])
        return Window(getattr(view, "top", 0), getattr(view, "left", 0), view.height, view.width, *out)


def _filler(info: TaskInfo, canvas: tuple[int, int]) -> TaskBatch:
    """Return the batch without samples that keeps a rank in step."""
    return TaskBatch(
        task=info.name,
        images_BCHW=torch.zeros(1, 3, *canvas, dtype=torch.uint8),
        sizes_B2=torch.tensor([canvas]),
        targets=None,
        samples=(),
    )
