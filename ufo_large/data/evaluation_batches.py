"""Batches for evaluation: every sample exactly once over all ranks, resized only."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.data import DataLoader, Dataset

from ufo_large.data.collate import collate
from ufo_large.data.errors import DataError
from ufo_large.data.loader import as_is, quiet_worker
from ufo_large.data.shards import SplitReader
from ufo_large.data.tiles import Tiling, tiles_of
from ufo_large.data.transforms.base import View
from ufo_large.data.transforms.window import fit, load, scaled
from ufo_large.data.workers import Workers
from ufo_large.structures import BadSample, RawSample, SampleInfo, TaskBatch, TaskInfo, Window


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
    chunk = images_per_batch(reader.sample(0), micro_batch, tiles) if len(reader) else 1
    chunks = rank_chunks(len(reader), chunk, rank, world_size)

    def rest(done: int) -> DataLoader:
        return DataLoader(
            _Batches(reader, info, chunks[done:], image_size, tiles, keep_aspect),
            batch_size=None,
            num_workers=workers,
            collate_fn=as_is,
            worker_init_fn=quiet_worker,
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )

    with contextlib.closing(Workers(f"evaluation of task {info.name!r}")) as found:
        for done in range(len(chunks)):
            batch = found.take(partial(rest, done))
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
        try:
            raw = self.reader.read(index)
            return evaluation_views(raw, self.info, self.canvas, self.tiles, self.keep_aspect)
        except BadSample as error:
            raise DataError(
                f"{self.reader.sample(index).file_name} in {self.reader.shard_of(index)}: {error}; "
                "evaluation skips nothing: repair the file and make the shards again"
            ) from None


def evaluation_views(
    raw: RawSample, info: TaskInfo, canvas: tuple[int, int], tiles: Tiling | None, keep_aspect: bool
) -> list[tuple[View, SampleInfo]]:
    """Return the image, or its tiles, as the network sees them at test time.

    Raises BadSample where the bytes cannot be read.
    """
    parts = [raw.sample] if tiles is None else tiles_of(raw.sample, tiles)
    loaded = [(load(raw, _window(part, canvas, keep_aspect), info), part) for part in parts]
    return loaded if tiles is None else [(View(image=shown.image), part) for shown, part in loaded]


def images_per_batch(sample: SampleInfo, micro_batch: int, tiles: Tiling | None) -> int:
    """Return how many images make a batch of `micro_batch` inputs, judged by the tiles of one of them."""
    return max(1, micro_batch // (1 if tiles is None else len(tiles_of(sample, tiles))))


def _window(part: SampleInfo, canvas: tuple[int, int], keep_aspect: bool) -> Window:
    factor_y, factor_x = fit(part.height, part.width, canvas, keep_aspect)
    out = scaled(part.height, factor_y, canvas[0]), scaled(part.width, factor_x, canvas[1])
    return Window(getattr(part, "top", 0), getattr(part, "left", 0), part.height, part.width, *out)


def _filler(info: TaskInfo, canvas: tuple[int, int]) -> TaskBatch:
    """Return the batch without samples that keeps a rank in step."""
    return TaskBatch(
        task=info.name,
        images_BCHW=torch.zeros(1, 3, *canvas, dtype=torch.uint8),
        sizes_B2=torch.tensor([canvas]),
        targets=None,
        samples=(),
    )
