"""Attention within windows in most blocks, for images of many patches.

Legend: B images, L tokens of an image, P prefix tokens, h w patches, W windows of an image, S tokens of a
window (its patches and a copy of the prefix), N = B x W, D width.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(slots=True)
class Grid:
    """The patch grid of the batch now running; the trunk sets it before its forward pass."""

    height: int = 0
    width: int = 0


def default_global_blocks(depth: int) -> tuple[int, ...]:
    """Return the last block of each quarter: ViTDet's choice (arXiv:2203.16527, section 3).

    Of up to four blocks, which would all be among them, the last alone.
    """
    if depth <= 4:
        return (depth - 1,)
    return tuple(sorted({-(-depth * quarter // 4) - 1 for quarter in (1, 2, 3, 4)}))


def window_attention(attention: nn.Module, side: int, num_prefix: int, grid: Grid) -> None:
    """Let a timm attention layer see windows of `side` x `side` patches only, from now on.

    Weights stay what they were for global attention. Class and register tokens are copied into every
    window and averaged afterwards. Rotary positions stay those in the image: towards class and register
    tokens they are absolute. A grid no larger than a window is attended to as a whole, exactly as before.
    """
    attention.__class__ = _windowed(type(attention))
    attention.__dict__.update(_window_side=side, _window_prefix=num_prefix, _window_grid=grid)


@functools.cache
def _windowed(attention_class: type[nn.Module]) -> type[nn.Module]:
    def forward(self, x_BLD: Tensor, rope: Tensor | None = None, **options) -> Tensor:
        grid, prefix, side = self._window_grid, self._window_prefix, self._window_side
        height, width = min(side, grid.height), min(side, grid.width)
        if (height, width) == (grid.height, grid.width):
            rotary = {} if rope is None else {"rope": rope}
            return attention_class.forward(self, x_BLD, **rotary, **options)
        if rope is not None:
            options["rope"] = _cut_rope(rope, grid, height, width).repeat(x_BLD.shape[0], 1, 1, 1)
        windows_BWSD, mask_W11S = split_windows(x_BLD, prefix, grid, height, width)
        batch = x_BLD.shape[0]  # len() would fix the batch size in an exported graph
        if mask_W11S is not None:
            options["attn_mask"] = mask_W11S.repeat(batch, 1, 1, 1)
        y_NSD = attention_class.forward(self, windows_BWSD.flatten(0, 1), **options)
        return join_windows(y_NSD.unflatten(0, (batch, -1)), prefix, grid, height, width)

    members = {"forward": forward, "__module__": attention_class.__module__}
    return type(attention_class.__name__, (attention_class,), members)


def split_windows(
    x_BLD: Tensor, prefix: int, grid: Grid, height: int, width: int
) -> tuple[Tensor, Tensor | None]:
    """Return windows [B, W, S, D] and which tokens are real, [W, 1, 1, S] (None: all)."""
    prefix_BPD, patches_BLD = x_BLD[:, :prefix], x_BLD[:, prefix:]
    padding = _padding(grid, height, width)
    map_BhwD = F.pad(patches_BLD.unflatten(1, (grid.height, grid.width)), padding)
    windows_BWSD = _cut(map_BhwD, height, width)
    copies_BWPD = prefix_BPD[:, None].expand(-1, windows_BWSD.shape[1], -1, -1)
    windows_BWSD = torch.cat([copies_BWPD, windows_BWSD], dim=2)
    if not any(padding):
        return windows_BWSD, None
    inside_1hw1 = F.pad(x_BLD.new_ones(1, grid.height, grid.width, 1), padding).bool()
    inside_WS = F.pad(_cut(inside_1hw1, height, width)[0, :, :, 0], (prefix, 0), value=True)
    return windows_BWSD, inside_WS[:, None, None]


def join_windows(y_BWSD: Tensor, prefix: int, grid: Grid, height: int, width: int) -> Tensor:
    """Put windows back in their places, [B, L, D]; prefix tokens are averaged over the windows."""
    rows, columns = -(-grid.height // height), -(-grid.width // width)
    patches = y_BWSD[:, :, prefix:].unflatten(2, (height, width)).unflatten(1, (rows, columns))
    map_BhwD = patches.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, : grid.height, : grid.width]
    return torch.cat([y_BWSD[:, :, :prefix].mean(1), map_BhwD.flatten(1, 2)], dim=1)


def _cut_rope(rope: Tensor, grid: Grid, height: int, width: int) -> Tensor:
    """Return the rotary embedding, [hw, D] or [heads, hw, D], of each window: [W, 1 or heads, patches, D]."""
    map_HhwD = rope.unflatten(-2, (grid.height, grid.width)).reshape(
        -1, grid.height, grid.width, rope.shape[-1]
    )
    map_HhwD = F.pad(map_HhwD, _padding(grid, height, width))
    return _cut(map_HhwD, height, width).transpose(0, 1)


def _padding(grid: Grid, height: int, width: int) -> tuple[int, ...]:
    return (0, 0, 0, -grid.width % width, 0, -grid.height % height)


def _cut(map_BhwD: Tensor, height: int, width: int) -> Tensor:
    rows_BRhwD = map_BhwD.unflatten(1, (-1, height)).unflatten(3, (-1, width))
    return rows_BRhwD.transpose(2, 3).flatten(3, 4).flatten(1, 2)
