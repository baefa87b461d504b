"""The pyramid's maps have the strides they are named by."""

import pytest
import torch

from ufo_large.models import SimplePyramid


@pytest.mark.parametrize("patch", [8, 14, 16, 32])
def test_levels_cover_the_image_at_their_stride(patch):
    pyramid = SimplePyramid(24, 8, patch, (16, 4, 32, 8))
    for height, width in ((6, 6), (5, 9)):
        levels = dict(zip(pyramid.strides, pyramid(torch.randn(2, 24, height, width)), strict=True))
        assert list(levels) == [4, 8, 16, 32]
        for stride, level in levels.items():
            cells = [side * patch / stride for side in (height, width)]
            assert level.shape[:2] == (2, 8)
            # rounded up at the base level, so a finer level may exceed the image by part of a base cell
            assert all(c <= n < c + 16 / min(stride, 16) for n, c in zip(level.shape[2:], cells, strict=True))


def test_patches_of_14_are_resampled_to_true_strides_of_16():
    """A map that holds each cell's centre in pixels holds the centres of the coarser cells afterwards."""
    pyramid = SimplePyramid(8, 8, 14, (16,))
    pyramid.levels["16"] = torch.nn.Identity()
    centres = (torch.arange(16) + 0.5) * 14
    level = pyramid(centres.expand(1, 8, 16, 16))[pyramid.strides.index(16)]
    assert level.shape[-1] == 14  # 224 pixels in cells of 16
    torch.testing.assert_close(level[0, 0, 0], (torch.arange(14) + 0.5) * 16, atol=1e-4, rtol=0)


def test_every_parameter_learns():
    pyramid = SimplePyramid(24, 8, 16, (4, 8, 16, 32))
    levels = dict(zip(pyramid.strides, pyramid(torch.randn(1, 24, 6, 6)), strict=True))
    sum(level.square().sum() for level in levels.values()).backward()
    assert all(p.grad.abs().sum() > 0 for n, p in pyramid.named_parameters() if not n.endswith("0.bias"))


@pytest.mark.parametrize("stride", [12, 0, 1])
def test_a_stride_that_cannot_be_made_is_refused(stride):
    with pytest.raises(ValueError, match=f"pyramid stride {stride}"):
        SimplePyramid(24, 8, 16, (stride,))
