"""Position embeddings: the grid that a file stores them for, and how they are resampled to another one.

Legend: B images, h w patches, L tokens, D width.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from timm.layers import resample_abs_pos_embed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

_STORED = re.compile(
    r"(?:.*\.)?pos_embed|(?:.*\.)?visual\.positional_embedding"
    r"|(?!.*text_model\.)(?:.*\.)?embeddings\.position_embeddings?(?:\.weight)?"  # transformers'
)

ViT = VisionTransformer | Eva


def is_antialiased(name: str) -> bool:
    """Whether positions of the timm model `name` were resampled with antialias when it was trained.

    Not those of DINO and of DINOv2 without registers (facebookresearch/dinov2, interpolate_antialias=False):
    another filter gives tokens that their blocks have never seen. Where nothing is known, timm's choice: yes.
    """
    model, _, tag = name.partition(".")
    return not (tag == "dino" or ("dinov2" in model and "_reg" not in model))


def stored_grid(tensors: Mapping[str, Any], num_prefix: int) -> int | None:
    """Return the side of the square grid that a file's positions are stored for, in patches.

    None where it stores none, or for a grid that is not square. `num_prefix`: tokens of the model that are no
    patches; each may have a position in the file or not.
    """
    stored = [value for name, value in tensors.items() if _STORED.fullmatch(name)]
    if len(stored) != 1 or stored[0].ndim > 3:
        return None
    num_positions = stored[0].shape[-2]
    side = math.isqrt(num_positions)
    return side if num_positions - side**2 <= max(num_prefix, 1) else None


def resampled(vit: ViT, positions_1LD: Tensor, grid: tuple[int, int], antialias: bool) -> Tensor:
    """Return positions that are stored for the grid of `vit`, for another one; the class token's stays."""
    return resample_abs_pos_embed(
        positions_1LD,
        new_size=list(grid),
        old_size=list(vit.patch_embed.grid_size),
        num_prefix_tokens=0 if vit.no_embed_class else vit.num_prefix_tokens,
        antialias=antialias,
    )


def move_to_grid(vit: ViT, grid: tuple[int, int], antialias: bool) -> None:
    """Store the positions of `vit` for another grid: inputs of that size need no more resampling."""
    if vit.pos_embed is not None:
        positions_1LD = resampled(vit, vit.pos_embed, grid, antialias)
        vit.pos_embed = nn.Parameter(positions_1LD, requires_grad=vit.pos_embed.requires_grad)
    size = tuple(side * vit.patch_embed.feat_ratio() for side in grid)
    vit.patch_embed.set_input_size(img_size=size)  # timm would resample too, were the grid still the old one
    vit.set_input_size(size)


class Patches(NamedTuple):
    """What timm's `_pos_embed` asks of a patch embedding."""

    grid_size: tuple[int, int]


class OnGrid:
    """A ViT as timm's `_pos_embed` sees it: its positions are on the grid of the input already.

    timm has no argument for how it resamples them.
    """

    def __init__(self, vit: ViT, grid: tuple[int, int], antialias: bool):
        self._vit = vit
        self.pos_embed = resampled(vit, vit.pos_embed, grid, antialias)
        self.patch_embed = Patches(grid)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vit, name)
