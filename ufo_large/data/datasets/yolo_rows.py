"""Rows of a YOLO label file: "<class> <centre x> <centre y> <width> <height>", or a class and a polygon."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ufo_large.data.datasets.base import numbered_lines
from ufo_large.kinds.boxes import Box
from ufo_large.structures import FIX_REMEDY, Reporter

BOX_NUMBERS = 4
POLYGON_NUMBERS = 6  # three points
SHARES = "write shares of the picture's width and height, not pixels"
WANTED = "a row is a class and 4 numbers, or a class and at least 3 points"


def read_rows(
    file: Path,
    image: Path,
    size: tuple[int, int],
    labels: Mapping[int, int],
    has_key_points: bool,
    report: Reporter,
) -> tuple[Box, ...]:
    """Return the boxes of a picture of `size` (height, width), in its pixels; polygons as what encloses them.

    `labels`: the file's class -> model label. `has_key_points`: what follows the box is left out. A row that
    cannot be read is reported with its line.
    """
    boxes: dict[Box, int] = {}
    for line, text in numbered_lines(file, report):
        try:
            box = _read_row(text.split(), size, labels, has_key_points)
            if box in boxes:
                raise ValueError(f"the same as line {boxes[box]}")
        except ValueError as error:
            report.add("annotation", f"{file}:{line}: {error}; {FIX_REMEDY}", image, keeps_images=True)
        else:
            boxes[box] = line
    return tuple(boxes)


def _read_row(
    words: Sequence[str], size: tuple[int, int], labels: Mapping[int, int], has_key_points: bool
) -> Box:
    """Raises ValueError that says what is wrong with the row."""
    number, *numbers = (_number(word) for word in words)
    if number not in labels:
        told = f"none of the {len(labels)} that are named" if number.is_integer() else "no whole number"
        raise ValueError(f"class {number:g} is {told}")
    if has_key_points and len(numbers) > BOX_NUMBERS:
        numbers = numbers[:BOX_NUMBERS]
    is_polygon = len(numbers) >= POLYGON_NUMBERS and len(numbers) % 2 == 0
    if len(numbers) != BOX_NUMBERS and not is_polygon:
        raise ValueError(f"{len(words)} numbers; {WANTED}")
    if strange := [value for value in numbers if not 0 <= value <= 1]:
        raise ValueError(f"{strange[0]:g} is not in 0..1; {SHARES}")
    corners = _around(numbers) if is_polygon else _corners(*numbers)
    height, width = size
    scaled = tuple(share * side for share, side in zip(corners, (width, height) * 2, strict=True))
    return Box(xyxy=scaled, label=labels[int(number)])


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise ValueError(f"{word!r} is no number") from None
    return value


def _around(points: Sequence[float]) -> tuple[float, float, float, float]:
    xs, ys = points[0::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _corners(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
