"""Windowed attention against timm's own attention under a mask."""

import pytest
import torch

from ufo_large.models.extract import dense_trunk_state
from ufo_large.models.windows import (
    Grid,
    default_global_blocks,
    join_windows,
    split_windows,
    window_attention,
)
from ufo_large.testing.models import tiny_trunk

FAMILIES = {
    "vit": {},
    "registers": {"name": "vit_giant_patch14_reg4_dinov2", "patch_size": 14, "img_size": 42},
    "eva02, rotary": {"name": "eva02_large_patch14_224", "patch_size": 14, "img_size": 42},
    "dinov3": {"name": "vit_7b_patch16_dinov3", "patch_size": 16, "img_size": 32},
    "rotary, learned": {"name": "vit_base_patch16_rope_mixed_224"},
}


def build(family: str, **options):
    torch.manual_seed(0)
    trunk = tiny_trunk("shared", **FAMILIES[family], **options).build(("a",)).eval()
    with torch.no_grad():
        for parameter in trunk.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return trunk


def same_window(grid: Grid, side: int, prefix: int) -> torch.Tensor:
    """Which token may see which: patches of one window and all prefix tokens, [L, L]."""
    rows, columns = torch.meshgrid(torch.arange(grid.height), torch.arange(grid.width), indexing="ij")
    window = (rows // side * 1000 + columns // side).flatten()
    mask = torch.ones(len(window) + prefix, len(window) + prefix, dtype=torch.bool)
    mask[prefix:, prefix:] = window[:, None] == window[None]
    return mask


@pytest.mark.parametrize("grid", [Grid(6, 6), Grid(5, 7), Grid(2, 7)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_patches_see_their_window_and_the_prefix(family, grid):
    """Against attention under a mask; windows of 3 x 3, also where they stick out."""
    trunk = build(family)
    vit, prefix = trunk.vit, trunk.vit.num_prefix_tokens
    attention = vit.blocks[0].attn
    x = torch.randn(2, prefix + grid.height * grid.width, 48)
    rope = getattr(vit, "rope", None)
    options = {}
    if rope is not None:
        embedding = rope.get_embed(shape=(grid.height, grid.width))
        options["rope"] = embedding[0] if getattr(vit, "rope_mixed", False) else embedding
    mask = same_window(grid, 3, prefix)
    expected = attention(x, attn_mask=mask[None, None], **options)
    window_attention(attention, 3, prefix, grid)
    ours = attention(x, **options)
    torch.testing.assert_close(ours[:, prefix:], expected[:, prefix:], atol=1e-5, rtol=1e-5)
    assert torch.isfinite(ours).all() and ours.shape == x.shape


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_window_as_large_as_the_image_changes_nothing(family):
    whole, windowed = build(family), build(family, window=8, global_blocks=(3,))
    size = 5 * whole.stride
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    sizes = torch.full((2, 2), size)
    expected, ours = whole(images, sizes, "a"), windowed(images, sizes, "a")
    assert torch.equal(ours.map_BDHW, expected.map_BDHW) and torch.equal(ours.pooled_BD, expected.pooled_BD)
    assert not torch.equal(
        build(family, window=2, global_blocks=(3,))(images, sizes, "a").map_BDHW, expected.map_BDHW
    )


def test_splitting_and_joining_are_inverse():
    grid = Grid(5, 7)
    x = torch.randn(2, 3 + 35, 4)
    windows, inside = split_windows(x, 3, grid, 2, 3)
    assert windows.shape == (2, 9, 3 + 6, 4)
    assert inside.sum() == 9 * 3 + 35
    torch.testing.assert_close(join_windows(windows, 3, grid, 2, 3), x, atol=1e-6, rtol=0)


def test_the_last_block_of_each_quarter_is_global():
    assert default_global_blocks(24) == (5, 11, 17, 23)
    assert default_global_blocks(40) == (9, 19, 29, 39)
    assert default_global_blocks(5) == (1, 2, 3, 4)
    assert default_global_blocks(4) == (3,)


def test_gradients_agree_with_checkpointing():
    gradients = []
    for mode in ("none", "selective", "full", "offload"):
        trunk = build("eva02, rotary", window=2, global_blocks=(3,), checkpointing=mode).train()
        images = torch.randint(
            0, 256, (1, 3, 70, 98), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        )
        trunk(images, torch.tensor([[70, 98]]), "a").map_BDHW.square().mean().backward()
        gradients.append([p.grad for p in trunk.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for other in gradients[1:] for a, b in zip(gradients[0], other, strict=True))


def test_options_without_effect_or_sense_are_refused():
    with pytest.raises(ValueError, match="has an effect with windows only"):
        tiny_trunk(global_blocks=(1,))
    with pytest.raises(ValueError, match=r"global_blocks=\(4,\).*blocks 0 to 3"):
        tiny_trunk(window=2, global_blocks=(4,)).build(("a",))
    with pytest.raises(ValueError, match="not all"):
        tiny_trunk(window=2, global_blocks=(0, 1, 2, 3)).build(("a",))
    tiny_trunk(window=2).build(("a",))
    with pytest.raises(ValueError, match="timm has no windowed attention"):
        dense_trunk_state(build("vit", window=2, global_blocks=(3,)), "a")
