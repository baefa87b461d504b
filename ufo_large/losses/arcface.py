"""ArcFace: ask for an angle between classes, not only for the right order (arXiv:1801.07698).

Legend: B images, K classes.
"""

import math

import torch
from torch import Tensor

_EPSILON = 1e-6  # keeps the slope of sqrt(1 - cosine^2) finite where a feature meets its class centre


def additive_angular_margin(cosine_BK: Tensor, targets_BK: Tensor, margin: float) -> Tensor:
    """Replace cos(t) by cos(t + margin) for the target class, [B, K].

    `targets_BK` are class probabilities; a mixed target gets its share of the margin, a one-hot target
    all of it (equation 3). Past t = pi - margin, where cos(t + margin) would rise again, the line
    cos(t) - margin sin(margin) goes on downwards.
    """
    cosine_BK = cosine_BK.clamp(-1 + _EPSILON, 1 - _EPSILON)
    sine_BK = torch.sqrt(1 - cosine_BK.square())
    turned_BK = cosine_BK * math.cos(margin) - sine_BK * math.sin(margin)
    line_BK = cosine_BK - margin * math.sin(margin)
    shifted_BK = torch.where(cosine_BK > math.cos(math.pi - margin), turned_BK, line_BK)
    return cosine_BK + targets_BK * (shifted_BK - cosine_BK)
