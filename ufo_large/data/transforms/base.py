"""What a transform takes and gives, and the random state it draws from.

An example is an image with its targets as torchvision tv_tensors, so that any torchvision v2 transform
moves boxes and masks with the picture. All randomness comes from torch's CPU generator, which `hermetic`
seeds for one sample and puts back: augmentation depends on the sample's draw alone, not on workers, ranks
or the model's RNG.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import tv_tensors

from ufo_large.data.shards import RawSample, SplitReader
from ufo_large.structures import KINDS, TaskBatch, TaskInfo


@dataclass(slots=True)
class Example:
    """One image ready to be batched, uint8 [3, h, w] at most as large as the canvas.

    `labels`: int64, [1] class or [N] of the boxes, None without ground truth. `boxes`: XYXY pixels of
    `image`.
    """

    image: tv_tensors.Image
    labels: Tensor | None = None
    boxes: tv_tensors.BoundingBoxes | None = None
    mask: tv_tensors.Mask | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[-2], self.image.shape[-1]


class Transform(ABC):
    """From a stored sample to an example that fits a canvas; and from a batch to a mixed batch."""

    kinds: tuple[str, ...] = KINDS

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Options of the transform; runtime objects come with `build`."""

        def build(self, reader: SplitReader, info: TaskInfo, keep_aspect: bool) -> "Transform":
            raise NotImplementedError

    @abstractmethod
    def __call__(self, raw: RawSample, canvas: tuple[int, int]) -> Example:
        """Return the example; `canvas` is (height, width). Raises BadSample for unreadable bytes."""

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
