"""Cut a window out of a stored image and scale it, decoding no more pixels than the result needs."""

import threading

import cv2
import numpy as np
import torch
from torchvision import tv_tensors

from ufo_large.data.transforms.base import View
from ufo_large.kinds import kind_of
from ufo_large.media.decode import decode_part, shrink_for
from ufo_large.structures import RawSample, TaskInfo, Window

SCRATCH_BYTES = 16 << 20
MOST_SKIPPED, MOST_AVERAGED = 2, 4
_LOCAL = threading.local()


def fit(height: int, width: int, canvas: tuple[int, int], keep_aspect: bool) -> tuple[float, float]:
    """Return the factors (y, x) that make an image fill the canvas, or as far as its aspect allows."""
    factor_y, factor_x = canvas[0] / height, canvas[1] / width
    return (min(factor_y, factor_x),) * 2 if keep_aspect else (factor_y, factor_x)


def whole_window(height: int, width: int, canvas: tuple[int, int], keep_aspect: bool) -> Window:
    """Return the window that shows the whole image on the canvas."""
    factor_y, factor_x = fit(height, width, canvas, keep_aspect)
    out_height, out_width = scaled(height, factor_y, canvas[0]), scaled(width, factor_x, canvas[1])
    return Window(0, 0, height, width, out_height, out_width)


def scaled(length: int, factor: float, limit: int) -> int:
    return max(1, min(limit, round(length * factor)))


def load(raw: RawSample, window: Window, info: TaskInfo) -> View:
    """Decode the window of a sample together with its targets; see `Kind.load`.

    Raises BadSample when the bytes cannot be read or differ in size from the index.
    """
    window, shrink = _aligned(window, raw)
    targets = kind_of(info).load(raw, window) if raw.labeled else None
    return View(image=_load_image(raw, window, shrink), targets=targets)


def _aligned(window: Window, raw: RawSample) -> tuple[Window, int]:
    """Choose how far the decoder may shrink, and widen the window to whole pixels of the shrunk image."""
    shrink = shrink_for(max(window.out_height / window.height, window.out_width / window.width))
    top, left = window.top - window.top % shrink, window.left - window.left % shrink
    bottom = min(raw.sample.height, -(-(window.top + window.height) // shrink) * shrink)
    right = min(raw.sample.width, -(-(window.left + window.width) // shrink) * shrink)
    return Window(top, left, bottom - top, right - left, window.out_height, window.out_width), shrink


def _load_image(raw: RawSample, window: Window, shrink: int) -> tv_tensors.Image:
    """Decode, crop and resize."""
    full = (raw.sample.height, raw.sample.width)
    wanted = (window.top, window.left, window.height, window.width)
    pixels, (top, left), stated = decode_part(raw.image, wanted, shrink, _scratch(), full)
    if stated is None and pixels.shape[:2] == full:
        shrink = 1
    bottom, right = -(-(window.top + window.height) // shrink), -(-(window.left + window.width) // shrink)
    top, left = top // shrink, left // shrink
    part = pixels[window.top // shrink - top : bottom - top, window.left // shrink - left : right - left]
    resized = resize_hwc(part, window.out_height, window.out_width)
    return as_image(resized.copy() if resized is part else resized)


def _scratch() -> np.ndarray:
    """Return this thread's buffer to decode into."""
    if not hasattr(_LOCAL, "scratch"):
        _LOCAL.scratch = np.empty(SCRATCH_BYTES, np.uint8)
    return _LOCAL.scratch


def resize_hwc(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize linearly; where more than two pixels fall on one, in two steps, so that none is skipped.

    The first step is linear, to a small multiple of the size, the second averages. On photographs that is as
    near to PIL's linear filter as OpenCV's INTER_AREA and four times as fast.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    multiple = -(-max(pixels.shape[0] / height, pixels.shape[1] / width) // MOST_SKIPPED)
    if multiple > MOST_AVERAGED:
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    if multiple > 1:
        larger = (int(multiple) * width, int(multiple) * height)
        pixels = cv2.resize(pixels, larger, interpolation=cv2.INTER_LINEAR)
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


def as_image(pixels_hwc: np.ndarray) -> tv_tensors.Image:
    return tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(pixels_hwc)).permute(2, 0, 1))
