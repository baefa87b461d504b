"""Which sample comes next: a pure function of the seed and of how much was consumed.

Every epoch is an order of sample indexes drawn from (seed, task, epoch). The order is parted by batch shape
(usually one); each part is an endless stream through its epochs. A micro-step takes images_per_rank x
world_size samples from the part that is furthest behind and each rank takes its slice. The last samples of
an epoch share a micro-step with the first of the next one, so nothing is dropped or repeated at any world
size. The state is an epoch and an offset per part: it does not know ranks or workers, so a run continues
on another world size with the very next sample.
"""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np


def seed_of(*parts: Any) -> int:
    """Return a 63-bit seed from any printable parts; the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Sampling(ABC):
    """How often each sample is drawn in an epoch."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Options of the sampling."""

        def build(self, label_starts: np.ndarray, labels: np.ndarray) -> "Sampling":
            raise NotImplementedError

    @abstractmethod
    def order(self, seed: int) -> np.ndarray:
        """Return one epoch's sample indexes, shuffled, int64. Every seed gives the same number of them."""


class Shuffle(Sampling):
    """Every sample once an epoch, in a full random permutation."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Sampling.Config):
        """No options."""

        def build(self, label_starts: np.ndarray, labels: np.ndarray) -> "Shuffle":
            return Shuffle(len(label_starts) - 1)

    def __init__(self, num_samples: int):
        self.num_samples = num_samples

    def order(self, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).permutation(self.num_samples)


class ClassBalanced(Sampling):
    """Every class equally often; within a class every sample equally often (up to one).

    A sample counts for each class it shows; samples without any label form one class of their own. An
    epoch has as many draws as there are samples.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Sampling.Config):
        """No options."""

        def build(self, label_starts: np.ndarray, labels: np.ndarray) -> "ClassBalanced":
            return ClassBalanced(label_starts, labels)

    def __init__(self, label_starts: np.ndarray, labels: np.ndarray):
        counts = np.diff(label_starts)
        self.num_samples = len(counts)
        owner = np.repeat(np.arange(self.num_samples), counts)
        groups = [np.unique(owner[labels == label]) for label in np.unique(labels)]
        groups.append(np.flatnonzero(counts == 0))
        self.groups = [g for g in groups if len(g)]

    def order(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        share, extra = divmod(self.num_samples, len(self.groups))
        wants = np.full(len(self.groups), share)
        wants[rng.permutation(len(self.groups))[:extra]] += 1
        return rng.permutation(
            np.concatenate([_cycle(g, n, rng) for g, n in zip(self.groups, wants, strict=True)])
        )


def _cycle(group: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    rounds = [rng.permutation(group) for _ in range(-(-int(count) // len(group)))]
    return np.concatenate(rounds)[:count] if rounds else group[:0]


class RepeatFactor(Sampling):
    """Images with rare classes come several times an epoch (Gupta et al. 2019, LVIS, arXiv:1908.03195).

    A class in the fraction f of the images has the factor max(1, sqrt(threshold / f)); an image has the
    largest of its classes. Whole repeats are certain, the rest is rounded at random, and every image
    comes at least once.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Sampling.Config):
        """`threshold`: classes in a smaller fraction of the images than this are repeated."""

        threshold: float = 0.01

        def __post_init__(self):
            if not 0 < self.threshold <= 1:
                raise ValueError(f"repeat_factor: threshold {self.threshold} is not in (0, 1]")

        def build(self, label_starts: np.ndarray, labels: np.ndarray) -> "RepeatFactor":
            return RepeatFactor(repeat_factors(label_starts, labels, self.threshold))

    def __init__(self, factors: np.ndarray):
        repeats = factors - 1.0
        self.num_samples, self.extra = len(factors), int(np.ceil(repeats.sum() - 1e-6))
        self.edges = np.cumsum(repeats) * (self.extra / max(repeats.sum(), 1e-6))

    def order(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        steps = np.floor(self.edges + rng.random()).clip(max=self.extra)
        steps[-1] = self.extra
        drawn = 1 + np.diff(steps, prepend=0).astype(np.int64)
        return rng.permutation(np.repeat(np.arange(self.num_samples), drawn))


def repeat_factors(label_starts: np.ndarray, labels: np.ndarray, threshold: float) -> np.ndarray:
    """Return each sample's repeat factor, float64 [n], at least 1."""
    counts = np.diff(label_starts)
    owner = np.repeat(np.arange(len(counts)), counts)
    factors = np.ones(len(counts))
    for label in np.unique(labels):
        images = np.unique(owner[labels == label])
        factors[images] = np.maximum(factors[images], np.sqrt(threshold / (len(images) / len(counts))))
    return factors


SAMPLINGS = {"shuffle": Shuffle, "class_balanced": ClassBalanced, "repeat_factor": RepeatFactor}


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of the stream: `epoch` and `offset` say which draw of which epoch it is."""

    index: int
    epoch: int
    offset: int


@dataclass(frozen=True, slots=True)
class Position:
    """How far each part is: `epochs[p]` whole epochs and `offsets[p]` samples; `steps` micro-steps in all."""

    epochs: tuple[int, ...]
    offsets: tuple[int, ...]
    steps: int = 0


class SampleStream:
    """The endless stream of one task, in parts. Holds no position; every method is a pure function."""

    def __init__(self, sampling: Sampling, part_of: np.ndarray, seed: int):
        self.sampling, self.seed = sampling, seed
        self.part_of = part_of
        self.num_parts = int(part_of.max()) + 1
        self._orders: dict[int, list[np.ndarray]] = {}

    def start(self) -> Position:
        return Position((0,) * self.num_parts, (0,) * self.num_parts)

    @property
    def samples_per_epoch(self) -> int:
        return sum(len(part) for part in self._order(0))

    def next_part(self, position: Position) -> int:
        """Return the part that is furthest behind, the lowest number first."""
        return min(range(self.num_parts), key=lambda p: (self._progress(position, p), p))

    def take(self, position: Position, part: int, count: int) -> tuple[list[Draw], Position]:
        """Return the next `count` draws of a part and the position after them."""
        epoch, offset = position.epochs[part], position.offsets[part]
        draws: list[Draw] = []
        while len(draws) < count:
            order = self._order(epoch)[part]
            chosen = order[offset : offset + count - len(draws)]
            draws += [Draw(int(index), epoch, offset + i) for i, index in enumerate(chosen)]
            offset += len(chosen)
            if offset >= len(order):
                epoch, offset = epoch + 1, 0
        epochs = (*position.epochs[:part], epoch, *position.epochs[part + 1 :])
        offsets = (*position.offsets[:part], offset, *position.offsets[part + 1 :])
        return draws, Position(epochs, offsets, position.steps + 1)

    def epochs_done(self, position: Position) -> float:
        """Return the epochs consumed, each part weighted by its size."""
        sizes = np.bincount(self.part_of, minlength=self.num_parts)
        return float(np.average([self._progress(position, p) for p in range(self.num_parts)], weights=sizes))

    def _progress(self, position: Position, part: int) -> float:
        return position.epochs[part] + position.offsets[part] / max(
            1, len(self._order(position.epochs[part])[part])
        )

    def _order(self, epoch: int) -> list[np.ndarray]:
        if epoch not in self._orders:
            order = self.sampling.order(seed_of(self.seed, "order", epoch))
            parts = self.part_of[order]
            for old in sorted(self._orders)[:-2]:
                del self._orders[old]
            self._orders[epoch] = [order[parts == p] for p in range(self.num_parts)]
        return self._orders[epoch]
