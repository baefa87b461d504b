"""What a model said, drawn on its picture with the words below: one panel per task."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ufo_large.kinds import Card, PredictionExample, kind_of
from ufo_large.media.lettering import lettered

LINE, MARGIN, FONT_SIZE, SWATCH = 20, 6, 14, 12
LINES, APART, GAP = 3, 12, 6
COLUMNS = 2
SMALLEST, LARGEST = 480, 1280
INK, PAPER = (20, 20, 20), (255, 255, 255)


def draw_overlay(examples: Sequence[PredictionExample]) -> np.ndarray:
    """Return the panels of one picture's predictions, RGB uint8 [H, W, 3]; equal pictures get equal sizes."""
    panels = [_panel(*drawn) for example in examples for drawn in kind_of(example.info).draw([example])]
    columns = min(COLUMNS, len(panels))
    rows = [_joined(panels[i : i + columns], axis=1) for i in range(0, len(panels), columns)]
    return _joined(rows, axis=0)


def long_side_for(height: int, width: int, tasks: int) -> int:
    """Return how long the picture is drawn in each panel."""
    most = LARGEST if tasks == 1 else LARGEST // COLUMNS
    return min(max(height, width, SMALLEST), most)


def _panel(card: Card, picture_HW3: np.ndarray) -> np.ndarray:
    """Write the card's words and the legend below the picture; what `LINES` lines cannot hold is left out."""
    height, width = picture_HW3.shape[:2]
    canvas = Image.new("RGB", (width, height + LINE * LINES + MARGIN), PAPER)
    canvas.paste(Image.fromarray(picture_HW3))
    pen = ImageDraw.Draw(canvas)
    said = [f"{name} {100 * share:.0f} %" for name, share in card.bars] or [card.headline]
    words = [(text, "") for text in [f"{card.task}: {said[0]}", *said[1:], *card.details]]
    left, line = MARGIN, 0
    for position, (text, colour) in enumerate([*words, *card.legend]):
        text, font = lettered(text, FONT_SIZE)
        room = SWATCH + 4 if colour else 0
        needed = room + pen.textlength(text, font)
        if position == len(words) or (left > MARGIN and left + needed > width):
            left, line = MARGIN, line + 1
        if line == LINES:
            break
        top = height + MARGIN / 2 + line * LINE
        if colour:
            pen.rectangle((left, top + 3, left + SWATCH, top + 3 + SWATCH), colour)
        pen.text((left + room, top), text, INK, font)
        left += needed + APART
    return np.asarray(canvas)


def _joined(parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Put pictures beside (1) or below (0) one another, on white."""
    across = 1 - axis
    largest = max(part.shape[across] for part in parts)
    padded = []
    for position, part in enumerate(parts):
        more = [(0, 0), (0, 0), (0, 0)]
        more[across] = (0, largest - part.shape[across])
        more[axis] = (GAP if position else 0, 0)
        padded.append(np.pad(part, more, constant_values=255))
    return np.concatenate(padded, axis=axis)
