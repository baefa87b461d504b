"""Run the first blocks of a ViT once for several tasks that see the same images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def computed_once(blocks: nn.Sequential, count: int) -> Iterator[None]:
    """Within it, the first `count` blocks compute once; every later pass gets the tokens of the first one.

    For passes on one batch of images without gradients: nothing checks that the images are the same. The
    embedding before the blocks still runs in every pass.
    """
    own = list(blocks)[:count]
    for index, block in enumerate(own):
        blocks[index] = _Once(block, keeps=index == count - 1)
    try:
        yield
    finally:
        for index, block in enumerate(own):
            blocks[index] = block


class _Once(nn.Module):
    """A block that computes in the first pass only; the last one of a row `keeps` its tokens for later."""

    def __init__(self, block: nn.Module, keeps: bool):
        super().__init__()
        self.block, self.keeps = block, keeps
        self.done = False
        self.kept: Tensor | None = None

    def forward(self, x_BLD: Tensor, *arguments: Any, **options: Any) -> Tensor:
        if self.done:
            return x_BLD if self.kept is None else self.kept
        x_BLD = self.block(x_BLD, *arguments, **options)
        self.done = True
        if self.keeps:
            self.kept = x_BLD
        return x_BLD
