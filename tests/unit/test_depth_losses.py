"""Losses on log depth: values by hand, a loop written from the paper, gradients, maps without depth."""

import math

import pytest
import torch

from ufo_large.losses import log_gradient_matching, scale_invariant_log

LOG2, LOG3 = math.log(2), math.log(3)


def test_scale_invariant_log_by_hand():
    """Differences log 2 and log 3, the third pixel unknown: mean of squares - 0.5 x square of the mean."""
    depth_BHW = torch.tensor([[[1.0, 5.0, 0.0]]])
    log_depth_BHW = torch.tensor([[[2.0, 15.0, 7.0]]]).log()
    expected = (LOG2**2 + LOG3**2) / 2 - 0.5 * ((LOG2 + LOG3) / 2) ** 2
    assert scale_invariant_log(log_depth_BHW, depth_BHW, 0.5).item() == pytest.approx(expected)


@pytest.mark.parametrize("lam,factor_costs", [(0.0, LOG2**2), (0.5, LOG2**2 / 2), (1.0, 0.0)])
def test_a_common_factor_costs_one_minus_lambda(lam, factor_costs):
    depth_BHW = torch.rand(2, 5, 7, dtype=torch.float64) + 0.5
    loss = scale_invariant_log((2 * depth_BHW).log(), depth_BHW, lam)
    assert loss.item() == pytest.approx(factor_costs, abs=1e-15)


def test_scale_invariant_log_weighs_images_alike():
    """One image with a single known pixel (log 2), one with four (log 3), one with none: left out."""
    depth_BHW = torch.zeros(3, 2, 2)
    depth_BHW[0, 0, 0], depth_BHW[1] = 4.0, 1.0
    factor_B11 = torch.tensor([2.0, 3.0, 9.0]).view(3, 1, 1)
    log_depth_BHW = (depth_BHW.clamp(min=0.1) * factor_B11).log()
    expected = (LOG2**2 + LOG3**2) / 2
    assert scale_invariant_log(log_depth_BHW, depth_BHW, 0.0).item() == pytest.approx(expected)


def test_gradient_matching_by_hand():
    """Log differences 0, 1, 3 / 1, 5, unknown.

    Step 1: to the right |1 - 0| + |3 - 1| + |5 - 1| = 7, down |1 - 0| + |5 - 1| = 5, 5 pixels: 12 / 5.
    Step 2 keeps the first and the last pixel of the upper row: |3 - 0| over 2 pixels. Step 4 keeps one.
    """
    depth_BHW = torch.tensor([[[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]])
    log_depth_BHW = torch.tensor([[[0.0, 1.0, 3.0], [1.0, 5.0, 100.0]]])
    for num_scales, expected in ((1, 12 / 5), (2, 12 / 5 + 3 / 2), (3, 12 / 5 + 3 / 2)):
        loss = log_gradient_matching(log_depth_BHW, depth_BHW, num_scales)
        assert loss.item() == pytest.approx(expected)


def test_gradient_matching_ignores_a_common_factor():
    depth_BHW = torch.rand(2, 9, 9, dtype=torch.float64) + 0.5
    assert log_gradient_matching((3 * depth_BHW).log(), depth_BHW).item() < 1e-13  # measured 4e-15


def test_gradient_matching_equals_a_loop_over_pixels():
    log_depth_BHW, depth_BHW = _scene()
    expected = 0.0
    for predicted_HW, true_HW in zip(log_depth_BHW.tolist(), depth_BHW.tolist(), strict=True):
        expected += sum(_gradient_term(predicted_HW, true_HW, step) for step in (1, 2, 4, 8)) / 2
    assert log_gradient_matching(log_depth_BHW, depth_BHW).item() == pytest.approx(expected, rel=1e-12)


def _gradient_term(predicted_HW, true_HW, step):
    """Equation 4 of MegaDepth at one scale, pixel after pixel."""
    height, width = len(true_HW), len(true_HW[0])
    differences = {
        (y, x): predicted_HW[y][x] - math.log(true_HW[y][x])
        for y in range(0, height, step)
        for x in range(0, width, step)
        if true_HW[y][x] > 0
    }
    total = 0.0
    for (y, x), difference in differences.items():
        for neighbour in ((y + step, x), (y, x + step)):
            if neighbour in differences:
                total += abs(differences[neighbour] - difference)
    return total / len(differences)


@pytest.mark.parametrize("name", ["silog", "gradient"])
def test_gradcheck(name):
    log_depth_BHW, depth_BHW = _scene()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, depth_BHW), log_depth_BHW.requires_grad_())


@pytest.mark.parametrize("name", ["silog", "gradient"])
def test_missing_depth_has_no_say(name):
    log_depth_BHW, depth_BHW = _scene()
    moved_BHW = torch.where(depth_BHW > 0, log_depth_BHW, log_depth_BHW + 50)
    assert LOSSES[name](moved_BHW, depth_BHW) == LOSSES[name](log_depth_BHW, depth_BHW)


@pytest.mark.parametrize("name", ["silog", "gradient"])
@pytest.mark.parametrize("shape", [(2, 4, 6), (1, 1, 1)])
def test_without_any_depth_the_loss_is_zero_and_reaches_the_prediction(name, shape):
    log_depth_BHW = torch.randn(shape, requires_grad=True)
    loss = LOSSES[name](log_depth_BHW, torch.zeros(shape))
    loss.backward()
    assert loss == 0 and torch.equal(log_depth_BHW.grad, torch.zeros(shape))


@pytest.mark.parametrize("name", ["silog", "gradient"])
def test_the_right_depth_costs_nothing_and_has_no_slope(name):
    _, depth_BHW = _scene()
    log_depth_BHW = depth_BHW.clamp(min=0.1).log().requires_grad_()
    loss = LOSSES[name](log_depth_BHW, depth_BHW)
    loss.backward()
    assert loss == 0 and torch.equal(log_depth_BHW.grad, torch.zeros_like(depth_BHW))


@pytest.mark.parametrize("name", ["silog", "gradient"])
def test_nan_is_not_hidden(name):
    log_depth_BHW, depth_BHW = _scene()
    log_depth_BHW[0, 4, 4] = torch.nan
    depth_BHW[0, 4, 4] = 2.0
    assert LOSSES[name](log_depth_BHW, depth_BHW).isnan()


LOSSES = {
    "silog": lambda log_depth_BHW, depth_BHW: scale_invariant_log(log_depth_BHW, depth_BHW, 0.5),
    "gradient": log_gradient_matching,
}


def _scene():
    """Two images of 9 x 13 pixels in float64, a third of them without depth."""
    generator = torch.Generator().manual_seed(0)
    log_depth_BHW = torch.randn(2, 9, 13, generator=generator, dtype=torch.float64)
    depth_BHW = torch.rand(2, 9, 13, generator=generator, dtype=torch.float64) + 0.5
    depth_BHW[torch.rand(2, 9, 13, generator=generator) < 1 / 3] = 0
    return log_depth_BHW, depth_BHW
