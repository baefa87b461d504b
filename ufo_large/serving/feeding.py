"""From pictures to predictions, a block of pictures after the other: all tasks of a block, then the next.

While the network computes, threads read and resize the next block; the decoders let go of Python's lock. A
task's batches are cut as the evaluation cuts them, so that the same pictures in the same order give the same
bits: in a batch of another size a kernel may add in another order. Tasks that see pictures the same way, in
batches of one size, share them: a picture is read and resized once, and the trunk's shared blocks run once.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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

Shown = list[tuple[View, SampleInfo]]
"""A picture, or each of its tiles, as the network sees it."""


@dataclass(frozen=True, slots=True)
class Feed:
    """How one task sees pictures: as at test time. `patch`: the side of the trunk's patches."""

    info: TaskInfo
    loader: LoaderConfig
    patch: int

    @property
    def tiles(self) -> Tiling | None:
        return self.loader.tiles.for_task(self.info)

    @property
    def canvases(self) -> list[tuple[int, int]]:
        """The sizes of the input, one per scale."""
        return self.loader.views.canvases(self.loader.image_size, self.patch)

    def sees_like(self, other: "Feed") -> bool:
        """Whether both show the network the same: whole pictures once, at one size, as many in a batch."""
        same = ("image_size", "keep_aspect", "micro_batch")
        whole = all(feed.tiles is None and feed.loader.views.count == 1 for feed in (self, other))
        scales = self.canvases == other.canvases
        return whole and scales and all(getattr(self.loader, f) == getattr(other.loader, f) for f in same)

    def shown(self, picture: Picture) -> list[Shown]:
        """Return the picture at each scale."""
        keep = self.loader.keep_aspect
        return [
            evaluation_views(picture.raw, self.info, canvas, self.tiles, keep) for canvas in self.canvases
        ]

    def images_per_batch(self, sample: SampleInfo) -> int:
        return images_per_batch(sample, self.loader.micro_batch, self.tiles)

    def predictions(
        self, model: MultitaskModel, shown: Sequence[list[Shown]], images: int
    ) -> Iterator[Prediction]:
        """Yield one prediction per picture, in batches of `images` pictures; the last has what is left."""
        views = self.loader.views.for_task(self.info)
        predict = lambda batch: [on_cpu(prediction) for prediction in _forward(model, batch)]
        found = (
            p for batches in self.batches(shown, images) for p in views.predicted(self.info, batches, predict)
        )
        return found if self.tiles is None else merge_tiles(self.info, found)

    def batches(self, shown: Sequence[list[Shown]], images: int) -> Iterator[list[TaskBatch]]:
        """Yield the batches of a chunk of pictures, one per scale."""
        for start in range(0, len(shown), images):
            scales = zip(*shown[start : start + images], strict=True)
            pairs = [[pair for one in scale for pair in one] for scale in scales]
            yield [
                collate(self.info, *zip(*of_scale, strict=True), canvas)
                for of_scale, canvas in zip(pairs, self.canvases, strict=True)
            ]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A picture with what the tasks of each group are shown of it."""

    picture: Picture
    shown: tuple[list[Shown], ...]


Predicted = tuple[Picture, dict[str, Prediction]] | Unread


def predicted(
    model: MultitaskModel, feeds: Sequence[Feed], given: Iterable[Named], at_once: int | None = None
) -> Iterator[Predicted]:
    """Yield each picture with one prediction per task, or why it cannot be read, in order.

    `at_once`: pictures in a block; None chooses as many as fill the batches of every task.
    """
    given, groups = iter(given), grouped(feeds)
    firsts = [group[0] for group in groups]
    with ThreadPoolExecutor(READERS, "pictures") as readers, ThreadPoolExecutor(1, "blocks") as ahead:
        first = list(readers.map(lambda one: _load(one, firsts), islice(given, 1)))
        sizes = _images_per_batch(first, firsts)
        size = at_once or _block_size(sizes)

        def block(begun: list[Loaded | Unread]) -> list[Loaded | Unread]:
            rest = list(islice(given, size - len(begun)))
            return begun + list(readers.map(lambda one: _load(one, firsts), rest))

        coming = ahead.submit(block, first)
        while loaded := coming.result():
            coming = ahead.submit(block, [])
            yield from _predict(model, groups, sizes, loaded)


def grouped(feeds: Sequence[Feed]) -> list[list[Feed]]:
    """Return the tasks that see pictures the same way, together."""
    groups: list[list[Feed]] = []
    for feed in feeds:
        group = next((group for group in groups if feed.sees_like(group[0])), None)
        if group is None:
            groups.append([feed])
        else:
            group.append(feed)
    return groups


def _load(given: Named, feeds: Sequence[Feed]) -> Loaded | Unread:
    picture = read_picture(given)
    if isinstance(picture, Unread):
        return picture
    try:
        return Loaded(picture, tuple(feed.shown(picture) for feed in feeds))
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
    model: MultitaskModel,
    groups: Sequence[Sequence[Feed]],
    sizes: Sequence[int],
    block: Sequence[Loaded | Unread],
) -> Iterator[Predicted]:
    loaded = [one for one in block if isinstance(one, Loaded)]
    found: list[dict[str, Prediction]] = [{} for _ in loaded]
    for position, (group, size) in enumerate(zip(groups, sizes, strict=True)):
        shown = [one.shown[position] for one in loaded]
        of_group = _alone if len(group) == 1 else _together
        for of_picture, predictions in zip(found, of_group(model, group, shown, size), strict=True):
            of_picture |= predictions
    answers = iter(found)
    for one in block:
        yield (one.picture, next(answers)) if isinstance(one, Loaded) else one


def _alone(
    model: MultitaskModel, group: Sequence[Feed], shown: Sequence[list[Shown]], images: int
) -> Iterator[dict[str, Prediction]]:
    (feed,) = group
    for prediction in feed.predictions(model, shown, images):
        yield {feed.info.name: prediction}


def _together(
    model: MultitaskModel, group: Sequence[Feed], shown: Sequence[list[Shown]], images: int
) -> Iterator[dict[str, Prediction]]:
    device, names = next(model.parameters()).device, [feed.info.name for feed in group]
    for (batch,) in group[0].batches(shown, images):
        batch = batch.to(device)
        with torch.no_grad():
            of_tasks = model.predict_together([replace(batch, task=name) for name in names])
        for predictions in zip(*of_tasks, strict=True):
            yield {n: on_cpu(p) for n, p in zip(names, predictions, strict=True)}


def _forward(model: MultitaskModel, batch: TaskBatch) -> list[Prediction]:
    with torch.no_grad():
        return model.predict(batch.to(next(model.parameters()).device))
