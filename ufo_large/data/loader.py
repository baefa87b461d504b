"""The training loader of one task: an endless stream of micro-batches that resumes exactly.

The main process decides which samples come next (`SampleStream`), workers read, decode and augment, and
the position moves only when a batch is handed out. So the state counts consumed samples, whatever the
workers prefetched, and a new loader continues with the very next sample, on this or another world size.
"""

import gc
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ufo_large.config import choice
from ufo_large.data.batching import BATCH_SHAPES, BatchShape, BatchShapes, FixedShape, Tokens
from ufo_large.data.collate import collate
from ufo_large.data.errors import DataError
from ufo_large.data.sampler import SAMPLINGS, Draw, Position, SampleStream, seed_of
from ufo_large.data.shards import SplitReader
from ufo_large.data.tiles import Tiling
from ufo_large.data.transforms import TRANSFORMS, Transform, View, hermetic
from ufo_large.data.views import Views
from ufo_large.data.worker_signals import heed_trainer_only
from ufo_large.data.workers import Workers
from ufo_large.kinds import kind_of
from ufo_large.structures import BadSample, SampleInfo, TaskBatch, TaskInfo
from ufo_large.structures.batch import map_arrays

REPLACEMENT_ATTEMPTS = 20
STATE_VERSION = 1
LARGEST_INLINE = 1 << 16
TRANSFORM_KINDS = {transform.Config: transform.kinds for transform in TRANSFORMS.values()}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    """How one task's training batches are made.

    `micro_batch` images a rank; `image_size` (height, width) of the network's input, filled by stretching
    or, with `keep_aspect`, padded at the bottom and right. `workers` processes a rank; 0 loads in the
    trainer's own. Up to `max_bad_samples` different unreadable samples a rank are replaced by others
    before it stops. `tiles` cuts the images when the task is tested; training crops them anyway. `views`:
    mirrored and rescaled ones that are predicted then as well.
    """

    micro_batch: int
    image_size: tuple[int, int]
    keep_aspect: bool = False
    transform: Any = choice(TRANSFORMS, "plain")
    sampling: Any = choice(SAMPLINGS, "shuffle")
    shapes: Any = choice(BATCH_SHAPES, "fixed")
    workers: int = 2
    tiles: Tiling = Tiling()
    views: Views = Views()
    max_bad_samples: int = 10

    def __post_init__(self):
        if self.micro_batch < 1 or min(self.image_size) < 1:
            raise ValueError(
                f"micro_batch {self.micro_batch} and image_size {self.image_size} must be at least 1"
            )
        if self.workers < 0 or self.max_bad_samples < 0:
            raise ValueError(
                f"workers {self.workers} and max_bad_samples {self.max_bad_samples} must not be negative"
            )

    def build(
        self, reader: SplitReader, info: TaskInfo, rank: int, world_size: int, seed: int, tokens: Tokens
    ) -> "TaskLoader":
        """Return the loader of one rank. All ranks must pass the same seed; `tokens` are the trunk's.

        Raises ValueError where the options do not fit the task or the trunk.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0..{world_size - 1}")
        if not reader.labeled:
            raise ValueError(f"task {info.name!r}: split {reader.split!r} has no ground truth to train on")
        kinds = TRANSFORM_KINDS[type(self.transform)]
        if kinds and info.kind not in kinds:
            raise ValueError(
                f"task {info.name!r} is {info.kind}, but its transform is for {', '.join(kinds)}"
            )
        self.tiles.for_task(info)
        self.views.for_task(info)
        if not kind_of(info).any_scale and not isinstance(self.shapes, FixedShape.Config):
            told = f"in {info.kind} the size shown matters, so inputs of several sizes contradict each other"
            raise ValueError(f"task {info.name!r}: {told}; leave out loader.shapes")
        if self.keep_aspect and any(getattr(self.transform, name, 0) for name in ("mixup", "cutmix")):
            told = "mixup and cutmix mix whole inputs, and with loader.keep_aspect a part of each is empty"
            raise ValueError(f"task {info.name!r}: {told}; leave out one or the other")
        try:
            shapes = self.batch_shapes(reader, tokens)
        except ValueError as error:
            raise ValueError(f"task {info.name!r}: {error}") from None
        sampling = self.sampling.build(reader.label_starts, reader.labels)
        stream = SampleStream(sampling, shapes.part_of, seed_of(seed, info.name))
        maker = BatchMaker(reader, info, self.transform.build(reader, info, self.keep_aspect), shapes.part_of)
        return TaskLoader(self, maker, stream, shapes, rank, world_size)

    def batch_shapes(self, reader: SplitReader, tokens: Tokens) -> BatchShapes:
        """Return what micro-batches a task's images make; see `BatchShapes.Config.build`."""
        full = BatchShape(self.micro_batch, self.image_size)
        return self.shapes.build(reader.heights, reader.widths, full, tokens)


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What one rank loads at one micro-step. `seeds[i]` belongs to draws[i], `mix_seed` to the batch."""

    draws: tuple[Draw, ...]
    seeds: tuple[int, ...]
    canvas: tuple[int, int]
    mix_seed: int


class BatchMaker(Dataset):
    """Turns requests into batches, in any process: reads, decodes, augments, replaces what is broken."""

    def __init__(self, reader: SplitReader, info: TaskInfo, transform: Transform, part_of: np.ndarray):
        self.reader, self.info, self.transform, self.part_of = reader, info, transform, part_of

    def __getitem__(self, request: BatchRequest) -> tuple[TaskBatch | DataError, dict[int, str]]:
        """Return the batch and what was wrong with the samples that were replaced, by index."""
        bad: dict[int, str] = {}
        pairs = zip(request.draws, request.seeds, strict=True)
        try:
            loaded = [self._load(draw.index, seed, request.canvas, bad) for draw, seed in pairs]
        except DataError as error:
            return error, bad
        views, samples = zip(*loaded, strict=True)
        batch = collate(self.info, views, samples, request.canvas)
        with hermetic(request.mix_seed):
            return self.transform.mix(batch), bad

    def _load(
        self, index: int, seed: int, canvas: tuple[int, int], bad: dict[int, str]
    ) -> tuple[View, SampleInfo]:
        """Load one sample; a broken one gives way to another of its part, the same one on every run."""
        for attempt in range(REPLACEMENT_ATTEMPTS):
            try:
                raw = self.reader.read(index)
                with hermetic(seed):
                    return self.transform(raw, canvas), raw.sample
            except BadSample as error:
                bad[index] = (
                    f"{self.reader.sample(index).file_name} in {self.reader.shard_of(index)}: {error}"
                )
                peers = np.flatnonzero(self.part_of == self.part_of[index])
                index = int(peers[seed_of(seed, "replace", attempt) % len(peers)])
        raise DataError(
            f"task {self.info.name!r}: {REPLACEMENT_ATTEMPTS} samples in a row are unreadable; "
            f"check the data with data_sharding/check_data.py. The last: {list(bad.values())[-1]}"
        )


class TaskLoader:
    """Endless iterator of one rank's micro-batches, with a small state that restores the next one.

    `bad_samples`: different samples found unreadable on this rank. `wait_s`: seconds spent waiting for data
    since the start; `canvases`: how many images of each (height, width) it handed out since then.
    """

    def __init__(
        self,
        config: LoaderConfig,
        maker: BatchMaker,
        stream: SampleStream,
        shapes: BatchShapes,
        rank: int,
        world_size: int,
    ):
        self.config, self.maker, self.stream, self.shapes = config, maker, stream, shapes
        self.rank, self.world_size = rank, world_size
        self.position = stream.start()
        self.wait_s = 0.0
        self.canvases: Counter[tuple[int, int]] = Counter()
        self._bad: dict[int, str] = {}
        self._batches = Workers(f"the loader of task {maker.info.name!r}")
        self._after: deque[Position] = deque()  # of the batches asked for and not yet handed out

    def __iter__(self) -> "TaskLoader":
        return self

    def __next__(self) -> TaskBatch:
        started = time.perf_counter()
        batch, bad = self._batches.take(self._data_loader)
        if isinstance(batch, DataError):
            raise batch
        self.position = self._after.popleft()
        self.canvases[tuple(batch.images_BCHW.shape[-2:])] += len(batch.samples)
        self.wait_s += time.perf_counter() - started
        self._note(bad)
        return batch

    @property
    def samples_per_epoch(self) -> int:
        return self.stream.samples_per_epoch

    @property
    def epoch(self) -> float:
        """Epochs consumed by all ranks together."""
        return self.stream.epochs_done(self.position)

    @property
    def bad_samples(self) -> int:
        return len(self._bad)

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch handed out; the same on every rank but for `bad`."""
        return {
            "version": STATE_VERSION,
            "data": self._identity(),
            "epochs": list(self.position.epochs),
            "offsets": list(self.position.offsets),
            "steps": self.position.steps,
            "bad": {str(index): message for index, message in self._bad.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, of any world size. Raises ValueError when the data or its order differ."""
        if state.get("version") != STATE_VERSION or state.get("data") != self._identity():
            raise ValueError(
                f"task {self.maker.info.name!r}: the loader state is of other data, seed, sampling or "
                f"batch shapes ({state.get('data')}, now {self._identity()}); resume with the same ones "
                "or start a new run"
            )
        self.close()
        self.position = Position(tuple(state["epochs"]), tuple(state["offsets"]), state["steps"])
        self._bad = {int(index): message for index, message in state["bad"].items()}

    def close(self) -> None:
        """Stop the workers; the next batch starts them again."""
        self._batches.close()

    def _identity(self) -> str:
        """Return what an order depends on, as a short hash."""
        config, reader = self.config, self.maker.reader
        parts = (len(reader), self.stream.seed, config.sampling, self.stream.part_of.tobytes())
        return f"{reader.split}-{len(reader)}-{seed_of(*parts):x}"

    def _next(self, position: Position) -> tuple[BatchRequest, Position]:
        """Return this rank's next request and the position after all ranks took theirs."""
        seed = self.stream.seed
        part = self.stream.next_part(position)
        shape = self.shapes.shape(part, seed_of(seed, "shape", position.steps))
        draws, after = self.stream.take(position, part, shape.images * self.world_size)
        mine = draws[self.rank * shape.images : (self.rank + 1) * shape.images]
        seeds = tuple(seed_of(seed, draw.epoch, draw.index, draw.offset) for draw in mine)
        mix_seed = seed_of(seed, "mix", position.steps, self.rank)
        return BatchRequest(tuple(mine), seeds, shape.canvas, mix_seed), after

    def _requests(self, after: deque[Position]) -> Iterator[BatchRequest]:
        position = self.position
        while True:
            request, position = self._next(position)
            after.append(position)
            yield request

    def _data_loader(self) -> DataLoader:
        """Return a DataLoader of the batches from the position on.

        The generator is ours, or it would draw from the model's.
        """
        self._after = deque()
        return DataLoader(
            self.maker,
            sampler=self._requests(self._after),
            batch_size=None,
            num_workers=self.config.workers,
            collate_fn=parcelled if self.config.workers else as_is,
            worker_init_fn=quiet_worker,
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )

    def _note(self, bad: dict[int, str]) -> None:
        for index in bad.keys() - self._bad.keys():
            self._bad[index] = bad[index]
            warnings.warn(f"skipped a broken sample of {self.maker.info.name}: {bad[index]}", stacklevel=3)
        if len(self._bad) > self.config.max_bad_samples:
            listed = "\n  ".join(list(self._bad.values())[:20])
            raise DataError(
                f"task {self.maker.info.name!r}: {len(self._bad)} broken samples, "
                f"max_bad_samples allows {self.config.max_bad_samples}. Repair them "
                f"(data_sharding/check_data.py finds them all) or raise the limit:\n  {listed}"
            )


def as_is(item: Any) -> Any:
    return item


class Parcel:
    """A batch on its way out of a worker; what comes out of it is the batch.

    Each tensor in shared memory costs the receiver a handshake with the worker, about half a millisecond; so
    only large ones go there, small ones travel in the message itself.
    """

    def __init__(self, batch: TaskBatch):
        self._batch = batch

    def __reduce__(self) -> tuple:
        return _unpacked, (map_arrays(self._batch, _inline_if_small),)


def parcelled(item: tuple[TaskBatch | DataError, dict[int, str]]) -> tuple[Any, dict[int, str]]:
    found, bad = item
    return (found if isinstance(found, DataError) else Parcel(found)), bad


def _unpacked(batch: TaskBatch) -> TaskBatch:
    return map_arrays(batch, lambda a: torch.from_numpy(a) if isinstance(a, np.ndarray) else a)


def _inline_if_small(tensor: torch.Tensor) -> torch.Tensor | np.ndarray:
    return tensor.numpy() if tensor.nbytes <= LARGEST_INLINE else tensor


def quiet_worker(worker: int) -> None:
    """Keep a worker to one thread (OpenCV would start one a core) and off objects inherited from the trainer.

    Without the freeze a garbage collection in the worker would run finalizers of the trainer's own loaders.
    """
    heed_trainer_only()
    cv2.setNumThreads(0)
    gc.freeze()
