"""Losses on log depth over the pixels whose depth is known, safe where none is.

Both are means over the images that have at least one such pixel, so an image with sparse depth counts as much
as a dense one; a batch without any gives 0 and a zero gradient.

Legend: B images, H W height and width in pixels.
"""

import torch
from torch import Tensor


def scale_invariant_log(log_depth_BHW: Tensor, depth_BHW: Tensor, lam: float) -> Tensor:
    """Return mean(d^2) - lam mean(d)^2 per image, d = predicted - true log depth (arXiv:1406.2283, eq. 4).

    `depth_BHW` is in metres, 0 where missing. With `lam` 0 this is the squared error of the logarithm, with 1
    a common factor on all of an image's depth costs nothing. It is Eigen et al.'s own form: the square root
    that BTS (arXiv:1907.10326) takes of it has no finite slope at the right answer. Written as
    var(d) + (1 - lam) mean(d)^2, which is equal and cannot become negative by rounding.
    """
    difference_BHW, known_BHW = _log_difference(log_depth_BHW, depth_BHW)
    count_B = known_BHW.sum(dim=(1, 2)).clamp(min=1)
    mean_B = difference_BHW.sum(dim=(1, 2)) / count_B
    centred_BHW = torch.where(known_BHW, difference_BHW - mean_B[:, None, None], 0)
    variance_B = centred_BHW.square().sum(dim=(1, 2)) / count_B
    return _mean_over_images(variance_B + (1 - lam) * mean_B.square(), known_BHW)


def log_gradient_matching(log_depth_BHW: Tensor, depth_BHW: Tensor, num_scales: int = 4) -> Tensor:
    """Return how much the steps of log depth between neighbours differ (MegaDepth, arXiv:1804.00607, L_grad).

    The sum over scales of sum(|dx d| + |dy d|) / n, d as above, per image. Scale k keeps each 2^k-th row and
    column, as the authors' code does; n counts the known pixels kept, and a step needs both its ends known.
    Keeps edges sharp and planes flat; blind to a common factor.
    """
    difference_BHW, known_BHW = _log_difference(log_depth_BHW, depth_BHW)
    loss_B = difference_BHW.new_zeros(len(difference_BHW))
    for scale in range(num_scales):
        step = 2**scale
        scaled_BHW, kept_BHW = difference_BHW[:, ::step, ::step], known_BHW[:, ::step, ::step]
        steps_B = _steps(scaled_BHW, kept_BHW, dim=1) + _steps(scaled_BHW, kept_BHW, dim=2)
        loss_B = loss_B + steps_B / kept_BHW.sum(dim=(1, 2)).clamp(min=1)
    return _mean_over_images(loss_B, known_BHW)


def _log_difference(log_depth_BHW: Tensor, depth_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return predicted - true log depth, 0 where the truth is missing, and where it is not."""
    known_BHW = depth_BHW > 0
    true_BHW = torch.where(known_BHW, depth_BHW, 1).log()
    return torch.where(known_BHW, log_depth_BHW - true_BHW, 0), known_BHW


def _steps(difference_BHW: Tensor, known_BHW: Tensor, dim: int) -> Tensor:
    """Return, per image, the sum of |step| along `dim` over neighbours that are both known."""
    count = known_BHW.shape[dim] - 1
    both_BHW = known_BHW.narrow(dim, 0, count) & known_BHW.narrow(dim, 1, count)
    return torch.where(both_BHW, difference_BHW.diff(dim=dim).abs(), 0).sum(dim=(1, 2))


def _mean_over_images(loss_B: Tensor, known_BHW: Tensor) -> Tensor:
    return loss_B.sum() / known_BHW.any(dim=(1, 2)).sum().clamp(min=1)
