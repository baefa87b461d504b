"""Our own loss functions against torch, direct formulas and values by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou, generalized_box_iou

from ufo_large.losses import (
    additive_angular_margin,
    inverse_frequency_weights,
    multiclass_dice,
    paired_overlaps,
    pixel_cross_entropy,
)

MARGIN = 0.3


def test_margin_is_an_angle_on_the_target_only():
    angle = torch.linspace(0.01, math.pi - MARGIN - 0.01, 50, dtype=torch.float64)
    cosine_BK = angle.cos()[:, None].repeat(1, 2)
    targets_BK = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(50, 2)
    shifted_BK = additive_angular_margin(cosine_BK, targets_BK, MARGIN)
    torch.testing.assert_close(shifted_BK[:, 0], (angle + MARGIN).cos(), atol=1e-9, rtol=0)  # measured 2e-16
    torch.testing.assert_close(shifted_BK[:, 1], angle.cos())


def test_margin_never_rises_with_the_angle():
    cosine_BK = torch.linspace(1, -1, 400, dtype=torch.float64)[:, None]
    shifted_BK = additive_angular_margin(cosine_BK, torch.ones_like(cosine_BK), MARGIN)
    assert (shifted_BK.diff(dim=0) <= 1e-6).all()


def test_mixed_label_gets_its_share_of_the_margin():
    cosine_BK = torch.tensor([[0.6, 0.2]])
    full_BK = additive_angular_margin(cosine_BK, torch.ones(1, 2), MARGIN)
    mixed_BK = additive_angular_margin(cosine_BK, torch.tensor([[0.75, 0.25]]), MARGIN)
    expected_BK = cosine_BK + torch.tensor([[0.75, 0.25]]) * (full_BK - cosine_BK)
    torch.testing.assert_close(mixed_BK, expected_BK)


def test_margin_has_a_finite_slope_at_the_class_centre():
    cosine_BK = torch.tensor([[1.0, -1.0]], requires_grad=True)
    additive_angular_margin(cosine_BK, torch.ones(1, 2), MARGIN).sum().backward()
    assert cosine_BK.grad.isfinite().all()


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
def test_pixel_cross_entropy_is_torchs_mean(weights):
    torch.manual_seed(0)
    logits_BKHW, masks_BHW = torch.randn(2, 3, 5, 7), torch.randint(0, 3, (2, 5, 7))
    masks_BHW[0, :2] = 255
    weights_K = None if weights is None else torch.tensor(weights)
    expected = F.cross_entropy(logits_BKHW, masks_BHW, weight=weights_K, ignore_index=255)
    torch.testing.assert_close(pixel_cross_entropy(logits_BKHW, masks_BHW, 255, weights_K), expected)


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
def test_pixel_losses_are_zero_where_all_is_ignored(weights):
    logits_BKHW = torch.randn(1, 3, 4, 4, requires_grad=True)
    masks_BHW = torch.full((1, 4, 4), 255)
    weights_K = None if weights is None else torch.tensor(weights)
    loss = pixel_cross_entropy(logits_BKHW, masks_BHW, 255, weights_K)
    loss = loss + multiclass_dice(logits_BKHW, masks_BHW, 255)
    loss.backward()
    assert loss == 0 and (logits_BKHW.grad == 0).all()


def test_dice_by_hand():
    """Two pixels of class 0, one of class 1, one ignored; the network says (0.5, 0.5) everywhere.

    Dice of class 0: 2 (0.5 + 0.5) / (3 x 0.25 + 2) = 2 / 2.75; of class 1: 2 x 0.5 / (3 x 0.25 + 1).
    """
    logits_BKHW = torch.zeros(1, 2, 2, 2)
    masks_BHW = torch.tensor([[[0, 0], [1, 255]]])
    expected = 1 - (2 / 2.75 + 1 / 1.75) / 2
    assert multiclass_dice(logits_BKHW, masks_BHW, 255).item() == pytest.approx(expected)


def test_dice_leaves_out_classes_that_are_absent():
    logits_BKHW = torch.tensor([50.0, -50.0, -50.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert multiclass_dice(logits_BKHW, torch.zeros(1, 2, 2, dtype=torch.int64), 255) < 1e-6


def test_inverse_frequency_weights():
    """Counts 100 and 400: mean 250, so sqrt(2.5) and sqrt(0.625), divided by their mean."""
    first, second = math.sqrt(2.5), math.sqrt(0.625)
    mean = (first + second) / 2
    assert inverse_frequency_weights([100, 400, 0]) == pytest.approx((first / mean, second / mean, 1.0))
    assert inverse_frequency_weights([5, 5], power=1.0) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("counts", [[], [0, 0], [3, -1]])
def test_inverse_frequency_weights_refuse_counts_that_say_nothing(counts):
    with pytest.raises(ValueError, match="pixel counts"):
        inverse_frequency_weights(counts)


def test_overlaps_of_pairs_are_torchvisions():
    torch.manual_seed(0)
    one, other = (torch.cat([c := torch.rand(20, 2), c + torch.rand(20, 2)], dim=1) for _ in range(2))
    iou, giou = paired_overlaps(one, other)
    torch.testing.assert_close(iou, box_iou(one, other).diagonal())
    torch.testing.assert_close(giou, generalized_box_iou(one, other).diagonal())
    torch.testing.assert_close(paired_overlaps(one[:, None], other)[1], generalized_box_iou(one, other))


def test_boxes_of_no_area_have_a_finite_slope():
    point = torch.full((1, 4), 0.5, requires_grad=True)
    iou, giou = paired_overlaps(point, point.detach())
    (iou + giou).sum().backward()
    assert iou == giou == 0 and point.grad.isfinite().all()
