"""Which shape a micro-batch has: how many images a rank takes and the canvas they are put on.

Every rank uses the same shape at the same micro-step, so the ranks do equal work by construction; from step
to step the number of images follows a budget of FLOPs, so that large canvases cost no more time or memory.
"""

import statistics
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class BatchShape:
    """`images` a rank and their canvas (height, width)."""

    images: int
    canvas: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """What the trunk makes of an image: tokens that show `patch` x `patch` pixels, `width` channels wide."""

    patch: int
    width: int

    @classmethod
    def of(cls, vit: Any) -> "Tokens":
        """Return those of a timm ViT."""
        return cls(patch=vit.patch_embed.feat_ratio(), width=vit.embed_dim)

    def grid(self, canvas: tuple[int, int]) -> tuple[int, int]:
        """Return how many tokens cover the canvas, (rows, columns)."""
        return -(-canvas[0] // self.patch), -(-canvas[1] // self.patch)

    def work(self, canvas: tuple[int, int]) -> float:
        """Return the work of one image in a ViT, in units of one token's linear layers.

        A block costs 24 D^2 FLOPs per token in its matrices and 4 N D in attention (D `width`, N tokens), so
        an image costs N (1 + N / (6 D)).
        """
        rows, columns = self.grid(canvas)
        return rows * columns * (1 + rows * columns / (6 * self.width))


class BatchShapes(ABC):
    """Parts a data set by shape and gives each part's shape at a micro-step.

    `part_of` int64 [n]: the part of each sample. Samples of different parts never share a micro-step.
    """

    part_of: np.ndarray

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Options; the images' sizes and the trunk's tokens come with `build`."""

        def build(
            self, heights: np.ndarray, widths: np.ndarray, full: BatchShape, tokens: Tokens
        ) -> "BatchShapes":
            """Raises ValueError where an image on one of the canvases costs more than the `full` batch."""
            raise NotImplementedError

    @abstractmethod
    def shape(self, part: int, seed: int) -> BatchShape:
        """Return the shape of a micro-batch of `part`; `seed` is the same on all ranks."""

    @property
    @abstractmethod
    def mean_images(self) -> float:
        """Images of a micro-batch on each rank, mean over many."""


class FixedShape(BatchShapes):
    """Every micro-batch has the recipe's own size."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(BatchShapes.Config):
        """No options."""

        def build(
            self, heights: np.ndarray, widths: np.ndarray, full: BatchShape, tokens: Tokens
        ) -> "FixedShape":
            return FixedShape(len(heights), full)

    def __init__(self, num_samples: int, full: BatchShape):
        self.part_of, self.full = np.zeros(num_samples, dtype=np.int64), full

    def shape(self, part: int, seed: int) -> BatchShape:
        return self.full

    @property
    def mean_images(self) -> float:
        return self.full.images


class MultiScale(BatchShapes):
    """Each micro-step draws one scale for all ranks; smaller canvases hold more images, larger ones fewer."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(BatchShapes.Config):
        """`scales` of image_size, rounded to whole patches of the trunk."""

        scales: tuple[float, ...] = (0.75, 0.875, 1.0, 1.125, 1.25)

        def __post_init__(self):
            if not self.scales or min(self.scales) <= 0:
                raise ValueError(f"multi_scale: scales {self.scales} must be above 0")

        def build(
            self, heights: np.ndarray, widths: np.ndarray, full: BatchShape, tokens: Tokens
        ) -> "MultiScale":
            canvases = [_scaled(full.canvas, scale, tokens.patch) for scale in self.scales]
            return MultiScale(len(heights), [_budgeted(c, full, tokens) for c in canvases])

    def __init__(self, num_samples: int, shapes: list[BatchShape]):
        self.part_of, self.shapes = np.zeros(num_samples, dtype=np.int64), shapes

    def shape(self, part: int, seed: int) -> BatchShape:
        return self.shapes[seed % len(self.shapes)]

    @property
    def mean_images(self) -> float:
        return statistics.fmean(shape.images for shape in self.shapes)


class AspectBuckets(BatchShapes):
    """Images of like aspect share a micro-step, on a canvas of their aspect and of image_size's work.

    With `keep_aspect` next to nothing is padded; without, images are stretched by next to nothing. Canvases
    are chosen by how much padding they save on the data at hand.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(BatchShapes.Config):
        """At most `max_buckets` canvases of whole patches, each with `min_samples` images or more."""

        max_buckets: int = 32
        min_samples: int = 64

        def __post_init__(self):
            if self.max_buckets < 1 or self.min_samples < 1:
                raise ValueError(
                    f"aspect_buckets: max_buckets {self.max_buckets} and min_samples {self.min_samples} "
                    "must be at least 1"
                )

        def build(
            self, heights: np.ndarray, widths: np.ndarray, full: BatchShape, tokens: Tokens
        ) -> "AspectBuckets":
            candidates = candidate_canvases(tokens.grid(full.canvas), tokens.patch)
            part_of, chosen = choose_canvases(heights, widths, candidates, self.max_buckets, self.min_samples)
            return AspectBuckets(part_of, [_budgeted(canvas, full, tokens) for canvas in chosen])

    def __init__(self, part_of: np.ndarray, shapes: list[BatchShape]):
        self.part_of, self.shapes = part_of, shapes

    def shape(self, part: int, seed: int) -> BatchShape:
        return self.shapes[part]

    @property
    def mean_images(self) -> float:
        """An epoch takes each part's samples once: its micro-batches are the parts' together."""
        samples = np.bincount(self.part_of, minlength=len(self.shapes))
        return len(self.part_of) / sum(n / s.images for n, s in zip(samples, self.shapes, strict=True))


BATCH_SHAPES = {"fixed": FixedShape, "multi_scale": MultiScale, "aspect_buckets": AspectBuckets}
LEAST_AREA = 0.7
WIDEST = 4.0
ASPECT_BINS = 400


def _scaled(canvas: tuple[int, int], scale: float, patch: int) -> tuple[int, int]:
    height, width = (max(patch, round(side * scale / patch) * patch) for side in canvas)
    return height, width


def _budgeted(canvas: tuple[int, int], full: BatchShape, tokens: Tokens) -> BatchShape:
    """Return as many images on `canvas` as cost no more than the full batch; ValueError when not even one."""
    images = int(full.images * tokens.work(full.canvas) / tokens.work(canvas) + 1e-9)
    if images < 1:
        raise ValueError(
            f"one image of {canvas[0]}x{canvas[1]} costs more than micro_batch {full.images} of "
            f"{full.canvas[0]}x{full.canvas[1]}; raise micro_batch or leave out the largest scales"
        )
    return BatchShape(images, canvas)


def candidate_canvases(grid: tuple[int, int], patch: int) -> list[tuple[int, int]]:
    """Return canvases of 70 to 100 % of the grid's tokens, up to 4 times as long as wide, its own first."""
    tokens = grid[0] * grid[1]
    found = [(grid[0] * patch, grid[1] * patch)]
    for rows in range(1, tokens + 1):
        for columns in range(int(np.ceil(LEAST_AREA * tokens / rows)), tokens // rows + 1):
            if 1 / WIDEST <= rows / columns <= WIDEST:
                found.append((rows * patch, columns * patch))
    return found


def padding_share(aspects: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """Return the share of the canvas that stays empty for images of `aspects` (height over width)."""
    ratio = np.asarray(aspects) / (canvas[0] / canvas[1])
    return 1 - np.minimum(ratio, 1 / ratio)


def choose_canvases(
    heights: np.ndarray, widths: np.ndarray, candidates: list[tuple[int, int]], most: int, min_samples: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return each image's bucket, int64 [n], and the buckets' canvases, chosen greedily by padding saved."""
    logs = np.log(np.asarray(heights, float) / np.asarray(widths, float))
    bins = np.linspace(logs.min(), logs.max(), ASPECT_BINS)
    bin_of = np.unique(np.digitize(logs, bins), return_inverse=True)[1]
    counts = np.bincount(bin_of)
    centres = np.exp(np.bincount(bin_of, logs) / counts)
    cost = np.stack([padding_share(centres, canvas) for canvas in candidates])
    chosen = _refined(cost, counts, _greedy(cost, counts, most, min_samples), min_samples)
    exact = np.stack([padding_share(np.exp(logs), candidates[c]) for c in chosen])
    part_of, used = np.unique(exact.argmin(0), return_inverse=True)[::-1]
    return part_of.astype(np.int64), [candidates[chosen[i]] for i in used]


def _greedy(cost: np.ndarray, counts: np.ndarray, most: int, min_samples: int) -> list[int]:
    """Add the canvas that saves most padding while every bucket keeps `min_samples`; at least one."""
    chosen = [int((cost @ counts).argmin())]
    tried = set(chosen)
    while len(chosen) < most and len(tried) < len(cost):
        best = cost[chosen].min(0)
        saved = (best - np.minimum(cost, best)) @ counts
        saved[list(tried)] = 0
        candidate = int(saved.argmax())
        if saved[candidate] <= 0:
            break
        tried.add(candidate)
        members = np.bincount(cost[[*chosen, candidate]].argmin(0), counts, minlength=len(chosen) + 1)
        if members.min() >= min_samples:
            chosen.append(candidate)
    return chosen


def _refined(cost: np.ndarray, counts: np.ndarray, chosen: list[int], min_samples: int) -> list[int]:
    """Move each canvas to where its own images pad least and reassign, while it helps (Lloyd's algorithm)."""
    while True:
        owner = cost[chosen].argmin(0)
        moved = [int((cost @ (counts * (owner == part))).argmin()) for part in range(len(chosen))]
        moved = list(dict.fromkeys(moved))
        members = np.bincount(cost[moved].argmin(0), counts, minlength=len(moved))
        better = cost[moved].min(0) @ counts < cost[chosen].min(0) @ counts - 1e-9
        if not better or (members.min() < min_samples and len(moved) > 1):
            return chosen
        chosen = moved
