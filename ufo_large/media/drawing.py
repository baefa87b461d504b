"""Draw what a model said, and the truth, on an image. Pictures are RGB uint8 [H, W, 3].

Legend: N boxes, H W height and width, K classes.
"""

import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ufo_large.media.lettering import lettered
from ufo_large.structures import IGNORE_INDEX

LONG_SIDE = 560
NUM_COLORS = 40
TRUTH_COLOR = (255, 255, 255)
TAG_SIZE = 14
SMALL_BOX = 28.0
"""Boxes that would be smaller than this in the drawn picture make the view zoom in on them."""


def fit(image_HW3: np.ndarray, long_side: int = LONG_SIDE) -> tuple[np.ndarray, float]:
    """Return the picture with its longer side at `long_side` (at most doubled), and the scale."""
    height, width = image_HW3.shape[:2]
    scale = min(long_side / max(height, width), 2.0)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image_HW3, size, interpolation=way), scale


def class_color(label: int) -> tuple[int, int, int]:
    """Return the colour of a label; it repeats after `NUM_COLORS` labels."""
    return palette()[label % NUM_COLORS]


@functools.cache
def palette() -> tuple[tuple[int, int, int], ...]:
    """Return `NUM_COLORS` colours, each as far as can be (in CIE Lab) from all before it.

    Chosen greedily from a grid without the greys, the very dark and the very light ones.
    """
    levels = np.linspace(0, 255, 11).round().astype(np.uint8)
    rgb_N3 = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    lab_N3 = cv2.cvtColor(rgb_N3[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    usable = (lab_N3[:, 0] > 35) & (lab_N3[:, 0] < 88) & (np.hypot(lab_N3[:, 1], lab_N3[:, 2]) > 40)
    rgb_N3, lab_N3 = rgb_N3[usable], lab_N3[usable]
    chosen = [int(np.argmin(np.abs(rgb_N3.astype(int) - (230, 50, 50)).sum(axis=1)))]
    while len(chosen) < NUM_COLORS:
        gaps_NC = np.linalg.norm(lab_N3[:, None] - lab_N3[chosen][None], axis=2)
        chosen.append(int(gaps_NC.min(axis=1).argmax()))
    return tuple(tuple(int(v) for v in rgb_N3[i]) for i in chosen)


def focus(image_HW3: np.ndarray, boxes_xyxy_N4: np.ndarray) -> tuple[int, int, int, int]:
    """Return the part of the image to show, (left, top, right, bottom): all of it, or a zoom on small boxes.

    It zooms where the smallest box would be drawn below `SMALL_BOX` pixels; then every box stays in view with
    a margin and the view keeps the picture's aspect.
    """
    height, width = image_HW3.shape[:2]
    whole = (0, 0, width, height)
    if not len(boxes_xyxy_N4):
        return whole
    sides_N = np.sqrt(np.prod(np.maximum(boxes_xyxy_N4[:, 2:] - boxes_xyxy_N4[:, :2], 1.0), axis=1))
    share_now = float(sides_N.min()) / max(height, width)
    if share_now * LONG_SIDE >= SMALL_BOX:
        return whole
    low, high = boxes_xyxy_N4[:, :2].min(axis=0), boxes_xyxy_N4[:, 2:].max(axis=0)
    need = max((high[0] - low[0]) / width, (high[1] - low[1]) / height) * 1.15
    factor = min(1.0, max(need, share_now * LONG_SIDE / SMALL_BOX, 64 / max(height, width)))
    view_w, view_h = width * factor, height * factor
    left = float(np.clip((low[0] + high[0] - view_w) / 2, 0, width - view_w))
    top = float(np.clip((low[1] + high[1] - view_h) / 2, 0, height - view_h))
    return int(left), int(top), int(np.ceil(left + view_w)), int(np.ceil(top + view_h))


def draw_boxes(
    image_HW3: np.ndarray,
    found_xyxy_N4: np.ndarray,
    texts: Sequence[str],
    labels: Sequence[int],
    truth_xyxy_N4: np.ndarray,
) -> np.ndarray:
    """Draw the truth as white dashes, then found boxes in the colour of their class with their text."""
    picture = np.ascontiguousarray(image_HW3).copy()
    for box in truth_xyxy_N4:
        _dashed_rectangle(picture, box)
    for box, label in zip(found_xyxy_N4, labels, strict=True):
        left, top, right, bottom = (round(float(v)) for v in box)
        cv2.rectangle(picture, (left, top), (right, bottom), class_color(label), 2, cv2.LINE_AA)
    for box, text, label in zip(found_xyxy_N4, texts, labels, strict=True):
        _tag(picture, text, box, class_color(label))
    return picture


def draw_mask(image_HW3: np.ndarray, mask_HW: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Lay the class colours over a greyed image; ignored pixels keep the plain image."""
    height, width = image_HW3.shape[:2]
    mask_HW = cv2.resize(mask_HW.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    table = np.array([class_color(label) for label in range(256)], dtype=np.float32)
    grey = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    mixed = ((1 - opacity) * grey + opacity * table[mask_HW]).round().astype(np.uint8)
    return np.where((mask_HW == IGNORE_INDEX)[..., None], image_HW3, mixed)


def draw_depth(depth_HW: np.ndarray, size: tuple[int, int], near: float, far: float) -> np.ndarray:
    """Return depths as colours at `size` (height, width): `near` bright, `far` dark, missing (0) grey."""
    depth_HW = cv2.resize(depth_HW.astype(np.float32), size[::-1], interpolation=cv2.INTER_NEAREST)
    share_HW = (depth_HW - near) / max(far - near, 1e-6)
    levels_HW = (255 * (1 - share_HW.clip(0, 1))).round().astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels_HW, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)
    return np.where((depth_HW > 0)[..., None], colours, np.uint8(128))


def _dashed_rectangle(picture: np.ndarray, box: np.ndarray) -> None:
    left, top, right, bottom = (round(float(v)) for v in box)
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    for color, thickness in (((0, 0, 0), 4), (TRUTH_COLOR, 2)):
        for start, end in zip(corners, corners[1:], strict=False):
            _dashed_line(picture, np.array(start, float), np.array(end, float), color, thickness)


def _dashed_line(picture, start: np.ndarray, end: np.ndarray, color, thickness: int) -> None:
    length = float(np.linalg.norm(end - start))
    dash = float(np.clip(length / 8, 3, 8))
    direction = (end - start) / max(length, 1e-9)
    for at in np.arange(0.0, length, 2 * dash):
        a, b = start + direction * at, start + direction * min(at + dash, length)
        cv2.line(picture, a.round().astype(int).tolist(), b.round().astype(int).tolist(), color, thickness)


def _tag(picture: np.ndarray, text: str, box: np.ndarray, color: tuple[int, int, int]) -> None:
    """Write `text` on a filled plate above the box, or inside where there is no room above."""
    text, font = lettered(text, TAG_SIZE)
    width, height = math.ceil(font.getlength(text)) + 6, sum(font.getmetrics()) + 2
    plate = Image.new("RGB", (width, height), color)
    light = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 140
    ImageDraw.Draw(plate).text((3, 1), text, (0, 0, 0) if light else (255, 255, 255), font)
    left = int(np.clip(round(float(box[0])), 0, max(0, picture.shape[1] - width)))
    top = round(float(box[1]))
    top = int(np.clip(top - height if top >= height else top, 0, picture.shape[0]))
    room_HW3 = picture[top : top + height, left : left + width]
    room_HW3[:] = np.asarray(plate)[: room_HW3.shape[0], : room_HW3.shape[1]]
