"""The tiny model behind the interface that the training step knows, and batches for it."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from ufo_large.testing.tiny import WIDTH, TinyMultitask


@dataclass
class TinyBatch:
    task: str
    x_BD: Tensor

    def to(self, device: torch.device) -> "TinyBatch":
        return TinyBatch(self.task, self.x_BD.to(device))


class TinyStream:
    """A loader of random batches of one task, decided by `seed`."""

    def __init__(self, task: str, seed: int):
        self.task = task
        self.generator = torch.Generator().manual_seed(seed)

    def __next__(self) -> TinyBatch:
        return TinyBatch(self.task, torch.randn(4, WIDTH, generator=self.generator))


class TinyStepModel(TinyMultitask):
    """Give a dict with one loss for a batch; its route says nothing."""

    def __init__(self, tasks: tuple[str, ...]):
        super().__init__(tasks)
        self.trunk = SimpleNamespace(route=SimpleNamespace(statistics={}))

    def not_finite(self) -> dict[str, list[str]]:
        return {}

    def forget_not_finite(self) -> None:
        """Nothing is noted."""

    def forward(self, batch: TinyBatch) -> dict[str, Tensor]:
        return {"loss": super().forward(batch.x_BD, batch.task)}
