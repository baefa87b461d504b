"""What a transform takes and gives, and the random state it draws from.

A view is an image with its targets as torchvision tv_tensors, so that any torchvision v2 transform
moves boxes and masks with the picture. All randomness comes from torch's CPU generator, which `hermetic`
seeds for one sample and puts back: augmentation depends on the sample's draw alone, not on workers, ranks
or the model's RNG.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torchvision import tv_tensors

from ufo_large.data.shards import SplitReader
from ufo_large.structures import RawSample, TaskBatch, TaskInfo


@dataclass(slots=True)
class View:
    """One image ready to be batched, uint8 [3, h, w] at most as large as the canvas.

    `targets`: what the task's kind loads, in pixels of `image`; None without ground truth.
    """

    image: tv_tensors.Image
    targets: dict[str, Tensor] | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[-2], self.image.shape[-1]


class Transform(ABC):
    """From a stored sample to a view that fits a canvas; and from a batch to a mixed batch.

    `name`: what a recipe calls it. `kinds`: the kinds of task it is for; empty: all.
    """

    name: ClassVar[str]
    kinds: tuple[str, ...] = ()

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Options of the transform; runtime objects come with `build`."""

        def build(self, reader: SplitReader, info: TaskInfo, keep_aspect: bool) -> "Transform":
            raise NotImplementedError

    @abstractmethod
    def __call__(self, raw: RawSample, canvas: tuple[int, int]) -> View:
        """Return the view; `canvas` is (height, width). Raises BadSample for unreadable bytes."""

    def mix(self, batch: TaskBatch) -> TaskBatch:
        """Return the batch, with images mixed where the transform does that."""
        return batch


@contextlib.contextmanager
def hermetic(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator inside the block and restore it after.

    torch.manual_seed would also reseed the GPU's generators, which belong to the model.
    """
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def log_uniform(low: float, high: float) -> float:
    return low * (high / low) ** torch.rand(()).item()


def chance(probability: float) -> bool:
    """Draw once, also for 0 and 1, so that changing one probability leaves the other draws alone."""
    return torch.rand(()).item() < probability


def pick(count: int) -> int:
    return int(torch.randint(count, ()).item())
