"""Convolutions and resampling as products give what torch's own kernels give, gradients too."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ufo_large.tasks import HEADS
from ufo_large.tasks.conv_products import DoublingConv, PointwiseConv, use_products
from ufo_large.tasks.resampling import by_products, by_torch, resampled
from ufo_large.testing.models import TINY_INFOS, tiny_model_with
from ufo_large.testing.pretend_gpu import GPU, PretendGpu

LAYOUTS = (torch.contiguous_format, torch.channels_last)
# Measured, of the largest value: float32 1.1e-6; bfloat16, whose steps are 1/256, 7.6e-3.
TOLERANCES = {torch.float32: 4e-6, torch.bfloat16: 1.6e-2}


def both_ways(x: torch.Tensor, ours, theirs, parameters=()) -> None:
    """Outputs and all gradients agree, seen from the largest value of each."""
    x = x.requires_grad_()
    found, expected = ours(x), theirs(x)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    torch.manual_seed(1)
    upstream = torch.randn_like(expected)
    gradients = [torch.autograd.grad(y, (x, *parameters), upstream) for y in (found, expected)]
    for one, other in zip((found, *gradients[0]), (expected, *gradients[1]), strict=True):
        error = (one.float() - other.float()).abs().max() / other.float().abs().max()
        assert error < TOLERANCES[x.dtype], error


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("conv", "product"),
    [
        (lambda bias: nn.Conv2d(24, 16, 1, bias=bias), PointwiseConv),
        (lambda bias: nn.ConvTranspose2d(24, 16, 2, stride=2, bias=bias), DoublingConv),
    ],
)
def test_a_convolution_as_a_product(conv, product, bias, layout, dtype):
    torch.manual_seed(0)
    theirs = conv(bias).to(dtype)
    ours = use_products(copy.copy(theirs))
    assert type(ours) is product and ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(2, 24, 5, 7, dtype=dtype).to(memory_format=layout)
    both_ways(x, ours, theirs, tuple(theirs.parameters()))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 8, 1, stride=2),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.Conv2d(8, 8, 1, padding=1),
        nn.ConvTranspose2d(8, 8, 2, stride=2, groups=2),
        nn.ConvTranspose2d(8, 8, 2, stride=2, output_padding=1),
        nn.ConvTranspose2d(8, 8, 4, stride=2),
    ],
)
def test_any_other_convolution_stays(conv):
    kind = type(conv)
    assert type(use_products(nn.Sequential(conv))[0]) is kind


@pytest.mark.parametrize("conv", [nn.Conv2d(4, 6, 1), nn.ConvTranspose2d(4, 6, 2, stride=2)])
def test_an_exported_graph_keeps_convolutions(conv):
    graph = torch.export.export(use_products(conv), (torch.randn(1, 4, 2, 2),)).graph
    assert any("conv" in str(node.target) for node in graph.nodes if node.op == "call_function")


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ratio", [2.0, 4.0, 8.0, 3.5, 14 / 16])
def test_resampling_as_products(ratio, layout, dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 11, dtype=dtype).to(memory_format=layout)
    size = tuple(int(side * ratio) for side in x.shape[-2:])
    theirs = lambda x: F.interpolate(x, scale_factor=ratio, mode="bilinear", align_corners=False)
    both_ways(x, lambda x: by_products(x, ratio, size), theirs)
    assert torch.equal(by_torch(x, ratio, size), theirs(x))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_border_is_repeated_beyond_the_map(layout):
    """9 cells of 14 pixels are 7.9 cells of 16: the eighth sticks out."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 11).to(memory_format=layout)
    padded = lambda x: F.pad(x, (0, 2, 0, 2), mode="replicate")
    theirs = lambda x: F.interpolate(padded(x), scale_factor=14 / 16, mode="bilinear")[..., :8, :10]
    both_ways(x, lambda x: by_products(x, 14 / 16, (8, 10)), theirs)
    assert torch.equal(by_torch(x, 14 / 16, (8, 10)), theirs(x))


def test_a_gpu_resamples_by_products_and_a_cpu_does_not():
    x = torch.randn(1, 2, 4, 4)
    with PretendGpu() as gpu:
        there = resampled(x.to(GPU, non_blocking=True), 2, (8, 8))
    assert there._pretends_gpu and not gpu.waits
    assert torch.equal(torch.Tensor(there), by_products(x, 2, (8, 8)))
    assert torch.equal(resampled(x, 2, (8, 8)), by_torch(x, 2, (8, 8)))


@pytest.mark.parametrize(("kind", "head"), [(k, h) for k, heads in HEADS.items() for h in heads])
def test_every_head_and_pyramid_of_a_model_has_products(kind, head):
    model = tiny_model_with(kind, head).build([TINY_INFOS[kind]])
    convolutions = [m for m in model.modules() if type(m) in (nn.Conv2d, nn.ConvTranspose2d)]
    assert not any(m.kernel_size == (1, 1) or m.stride == (2, 2) for m in convolutions)
