"""From pictures to predictions, a block of pictures after the other: all tasks of a block, then the next.

While the network computes, threads read and resize the next block; the decoders let go of Python's lock. A
task's batches are cut as the evaluation cuts them, so that the same pictures in the same order give the same
bits: in a batch of another size a kernel may add in another order.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from ufo_large.data.collate import collate
from ufo_large.data.evaluation_batches import evaluation_views, images_per_batch
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.tiles import Tiling, merge_tiles
from ufo_large.data.transforms.base import View
from ufo_large.models.multitask import MultitaskModel
from ufo_large.serving.pictures import Named, Picture, Unread, read_picture
from ufo_large.structures import BadSample, Prediction, SampleInfo, TaskBatch, TaskInfo, on_cpu

MOST_AT_ONCE = 128
READERS = 4

Views = list[tuple[View, SampleInfo]]


@dataclass(frozen=True, slots=True)
class Feed:
    """How one task sees pictures: as at test time."""

    info: TaskInfo
    loader: LoaderConfig

    @property
    def tiles(self) -> Tiling | None:
        return self.loader.tiles.for_task(self.info)

    def views(self, picture: Picture) -> Views:
        loader = self.loader
        return evaluation_views(picture.raw, self.info, loader.image_size, self.tiles, loader.keep_aspect)

    def images_per_batch(self, sample: SampleInfo) -> int:
        return images_per_batch(sample, self.loader.micro_batch, self.tiles)

    def batches(self, views: Sequence[Views], images: int) -> Iterator[TaskBatch]:
        """Yield batches of `images` pictures each; the last has what is left."""
        for start in range(0, len(views), images):
            pairs = [pair for one in views[start : start + images] for pair in one]
            yield collate(self.info, *zip(*pairs, strict=True), self.loader.image_size)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A picture with what each feed shows of it."""

    picture: Picture
    views: tuple[Views, ...]


Predicted = tuple[Picture, dict[str, Prediction]] | Unread


def predicted(
    model: MultitaskModel, feeds: Sequence[Feed], given: Iterable[Named], at_once: int | None = None
) -> Iterator[Predicted]:
    """Yield each picture with one prediction per task, or why it cannot be read, in order.

    `at_once`: pictures in a block; None chooses as many as fill the batches of every task.
    """
    given = iter(given)
    with ThreadPoolExecutor(READERS, "pictures") as readers, ThreadPoolExecutor(1, "blocks") as ahead:
        first = list(readers.map(lambda one: _load(one, feeds), islice(given, 1)))
        sizes = _images_per_batch(first, feeds)
        size = at_once or _block_size(sizes)

        def block(begun: list[Loaded | Unread]) -> list[Loaded | Unread]:
            rest = list(islice(given, size - len(begun)))
            return begun + list(readers.map(lambda one: _load(one, feeds), rest))

        coming = ahead.submit(block, first)
        while loaded := coming.result():
            coming = ahead.submit(block, [])
            yield from _predict(model, feeds, sizes, loaded)


def _load(given: Named, feeds: Sequence[Feed]) -> Loaded | Unread:
    picture = read_picture(given)
    if isinstance(picture, Unread):
        return picture
    try:
        return Loaded(picture, tuple(feed.views(picture) for feed in feeds))
    except BadSample as error:
        return Unread(name=given.name, number=given.number, error=str(error))


def _images_per_batch(first: Sequence[Any], feeds: Sequence[Feed]) -> list[int]:
    """Return how many pictures make a batch of each feed, judged by the first picture."""
    nominal = SampleInfo(key="", file_name="", height=1 << 14, width=1 << 14, image_id=0, order=0)
    sample = next((one.picture.sample for one in first if isinstance(one, Loaded)), nominal)
    return [feed.images_per_batch(sample) for feed in feeds]


def _block_size(images_per_batch: Sequence[int]) -> int:
    """Return how many pictures fill the batches of all tasks; the largest batch where those are many."""
    fitting = math.lcm(*images_per_batch)
    return fitting if fitting <= MOST_AT_ONCE else max(images_per_batch)


def _predict(
    model: MultitaskModel, feeds: Sequence[Feed], sizes: Sequence[int], block: Sequence[Loaded | Unread]
) -> Iterator[Predicted]:
    loaded = [one for one in block if isinstance(one, Loaded)]
    found: list[dict[str, Prediction]] = [{} for _ in loaded]
    for position, (feed, size) in enumerate(zip(feeds, sizes, strict=True)):
        batches = feed.batches([one.views[position] for one in loaded], size)
        raw = (on_cpu(p) for batch in batches for p in _forward(model, batch))
        whole = raw if feed.tiles is None else merge_tiles(feed.info, raw)
        for of_picture, prediction in zip(found, whole, strict=True):
            of_picture[feed.info.name] = prediction
    answers = iter(found)
    for one in block:
        yield (one.picture, next(answers)) if isinstance(one, Loaded) else one


def _forward(model: MultitaskModel, batch: TaskBatch) -> list[Prediction]:
    with torch.no_grad():
        return model.predict(batch.to(next(model.parameters()).device))
