"""Large-scale jitter: show an image larger or smaller and, where it does not fit, a part of it."""

import math

import numpy as np

from ufo_large.data.transforms.base import pick
from ufo_large.data.transforms.window import fit, scaled
from ufo_large.structures import Window


def jittered_window(
    size: tuple[int, int],
    canvas: tuple[int, int],
    zoom: float,
    keep_aspect: bool,
    focus_xyxy: np.ndarray | None = None,
    cover: tuple[int, int] | None = None,
) -> Window:
    """Return a window of an image of `size` (height, width), drawn at random.

    At zoom 1 the image fills the canvas. A larger one is cropped to the canvas at a random place, a smaller
    one leaves room at the bottom and right. `focus_xyxy`: a box to keep whole in the window where it fits.
    `cover`: the smaller area to fill instead of the canvas, without gaps, at the canvas's scale.
    """
    factors = [f * zoom for f in fit(*size, canvas, keep_aspect)]
    area = canvas if cover is None else cover
    if cover is not None:
        least = [area[i] / size[i] for i in range(2)]
        factors = [max(factors[i], least[i]) for i in range(2)]
        factors = [max(factors)] * 2 if keep_aspect else factors
    lengths = [min(size[i], max(1, math.floor(area[i] / factors[i] + 1e-6))) for i in range(2)]
    out = [area[i] if cover else scaled(lengths[i], factors[i], area[i]) for i in range(2)]
    spans = (
        (None, None)
        if focus_xyxy is None
        else ((focus_xyxy[1], focus_xyxy[3]), (focus_xyxy[0], focus_xyxy[2]))
    )
    starts = [_start(size[i], lengths[i], spans[i]) for i in range(2)]
    return Window(*starts, *lengths, *out)


def _start(size: int, length: int, span: tuple[float, float] | None) -> int:
    """Draw where a window of `length` begins in 0..size, around `span` when it is given."""
    low, high = 0, size - length
    if span is not None:
        first, last = math.ceil(span[1]) - length, math.floor(span[0])
        if first > last:
            first = last = round((span[0] + span[1] - length) / 2)
        low, high = min(max(low, first), high), max(low, min(high, last))
    return low + pick(high - low + 1)
