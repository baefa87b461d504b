"""The stem of oriented gradients: hand-worked histograms, what leaves them alone, timm's embedding."""

import math

import pytest
import timm
import torch
from torch.nn import functional as F

from ufo_large.models.dense_values import PretrainedValues, RandomValues
from ufo_large.models.stem import DIRECTIONS, GradientPatchEmbed, oriented_gradients
from ufo_large.models.weights import fill, trunk_values
from ufo_large.testing.models import tiny_trunk

CELL = 8


def ramp(degrees: float, slope: float = 0.1) -> torch.Tensor:
    """A grey image that grows brighter in a direction, from x to y."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    angle = math.radians(degrees)
    return (slope * (x * math.cos(angle) + y * math.sin(angle))).expand(1, 3, -1, -1)


def noise(size: int) -> torch.Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("step", range(DIRECTIONS))
def test_a_ramp_votes_for_its_direction(step):
    """Direction o gets max(0, cos)^8 of the root of the slope; the sum of squares divides."""
    slope = 0.1
    cosines = [max(0.0, math.cos(math.radians(30 * (o - step)))) for o in range(DIRECTIONS)]
    signed = [c**8 * slope**0.5 for c in cosines]
    votes = [*signed, *(signed[o] + signed[o + 6] for o in range(6))]
    energy = math.sqrt(sum(v * v for v in votes))
    expected = [v / (energy + 0.02) for v in votes] + [math.log1p(energy)]
    found = oriented_gradients(ramp(30 * step, slope), CELL)
    assert found.shape == (1, 19, 12, 12)
    inner = found[0, :, 3:-3, 3:-3] / math.sqrt(19)
    expected = torch.tensor(expected)[:, None, None].expand_as(inner)
    torch.testing.assert_close(inner, expected, atol=2e-4, rtol=0)


def test_brightness_leaves_the_histograms_alone_and_contrast_hardly_moves_them():
    image = F.avg_pool2d(noise(66), 3, 1)
    found = oriented_gradients(image, CELL)
    torch.testing.assert_close(oriented_gradients(image + 3, CELL), found, atol=1e-4, rtol=1e-4)
    directions = (oriented_gradients(image * 2, CELL) - found)[:, :-1]
    assert directions.abs().max() < 0.1 * found[:, :-1].max()


def test_a_shift_of_half_a_cell_moves_the_cells_by_one():
    image = noise(64)
    found, shifted = (oriented_gradients(i, CELL) for i in (image, image.roll(CELL // 2, -1)))
    torch.testing.assert_close(shifted[..., 4:-3], found[..., 3:-4], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_pixels_part_is_timms_embedding():
    torch.manual_seed(0)
    ours = GradientPatchEmbed(img_size=None, patch_size=CELL, embed_dim=32)
    theirs = timm.layers.PatchEmbed(img_size=None, patch_size=CELL, embed_dim=32)
    theirs.load_state_dict({n: v for n, v in ours.state_dict().items() if ".gradients." not in n})
    images = torch.randn(2, 3, 32, 48)
    cells = F.conv2d(oriented_gradients(images, CELL), *ours.proj.gradients.parameters(), stride=2)
    expected = theirs(images) + cells.flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours(images), expected)


def test_a_trunk_is_filled_and_runs_at_other_sizes():
    trunk = tiny_trunk("task", stem="gradients").build(("a", "b"))
    fill(trunk, trunk_values(trunk, RandomValues(trunk.config, 0), 0))
    images = torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8)
    features = trunk(images, torch.tensor([[40, 56]] * 2), "b")
    assert features.map_BDHW.shape == (2, 48, 5, 7)
    features.map_BDHW.sum().backward()
    assert trunk.vit.patch_embed.proj.gradients.weight.grad.abs().sum() > 0


def test_where_it_cannot_be_it_says_so(tmp_path):
    with pytest.raises(ValueError, match="multiple of 4 pixels"):
        tiny_trunk(stem="gradients", patch_size=14, img_size=28).build(("a",))
    with pytest.raises(ValueError, match="trunk.stem='gradient'"):
        tiny_trunk(stem="gradient")
    with pytest.raises(ValueError, match="needs a timm VisionTransformer"):
        tiny_trunk(stem="gradients", name="eva02_tiny_patch14_224").build(("a",))
    torch.save(tiny_trunk(stem="patch").build_vit().state_dict(), tmp_path / "vit.pt")
    with pytest.raises(ValueError, match=r"patch_embed\.proj\.gradients\.weight: missing"):
        PretrainedValues(tiny_trunk(stem="gradients"), tmp_path / "vit.pt")
