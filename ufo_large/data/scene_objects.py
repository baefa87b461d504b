"""Cars, signs, people, trees and houses of the synthetic world, drawn as filled polygons.

Every object is described in its own unit square (x to the right, y down) and painted into a rectangle of
the canvas, so the same car stands small in a street and large in a close-up.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from ufo_large.structures import IGNORE_INDEX

Rgb = tuple[float, float, float]
Rect = tuple[float, float, float, float]

SUBPIXEL_BITS = 4
LIES_FLAT = -1.0

# values of the masks: train ids of Cityscapes
CLASSES = {
    0: "road", 1: "sidewalk", 2: "building", 5: "pole", 7: "traffic sign",
    8: "vegetation", 10: "sky", 11: "person", 13: "car",
}  # fmt: skip
VALUE = {name: value for value, name in CLASSES.items()}


@dataclass(slots=True)
class Canvas:
    """A picture being painted with its class mask and with what its depth follows from.

    `rgb_HW3` uint8; `classes_HW` uint8 mask values; `objects_HW` uint8 number of the topmost object a pixel
    shows, 0 = background; `feet_HW` float32 row on which what a pixel shows stands on the ground, LIES_FLAT
    for the ground itself and for the sky.
    """

    height: int
    width: int
    rgb_HW3: np.ndarray = field(init=False)
    classes_HW: np.ndarray = field(init=False)
    objects_HW: np.ndarray = field(init=False)
    feet_HW: np.ndarray = field(init=False)

    def __post_init__(self):
        self.rgb_HW3 = np.zeros((self.height, self.width, 3), np.uint8)
        self.classes_HW = np.full((self.height, self.width), IGNORE_INDEX, np.uint8)
        self.objects_HW = np.zeros((self.height, self.width), np.uint8)
        self.feet_HW = np.full((self.height, self.width), LIES_FLAT, np.float32)

    def fill(
        self, polygons, color: Rgb, value: int | None = None, number: int = 0, foot: float = LIES_FLAT
    ) -> None:
        """Fill polygons (canvas pixels, not overlapping) with one colour.

        `value` None leaves mask and feet as they are (details on an object); `number` 0 is for the
        background, which is painted before any object; `foot` is the row on which the object stands.
        """
        fixed = [np.rint(np.asarray(p, np.float32) * (1 << SUBPIXEL_BITS)).astype(np.int32) for p in polygons]
        rgb = tuple(min(max(int(c), 0), 255) for c in color)
        cv2.fillPoly(self.rgb_HW3, fixed, rgb, cv2.LINE_8, SUBPIXEL_BITS)
        if value is not None:
            cv2.fillPoly(self.classes_HW, fixed, int(value), cv2.LINE_8, SUBPIXEL_BITS)
            cv2.fillPoly(self.feet_HW, fixed, float(foot), cv2.LINE_8, SUBPIXEL_BITS)
        if value is not None and number:
            cv2.fillPoly(self.objects_HW, fixed, int(number), cv2.LINE_8, SUBPIXEL_BITS)


@dataclass(frozen=True, slots=True)
class Brush:
    """Paints unit-square shapes into `rect` (x0, y0, x1, y1) of a canvas, mirrored where `flip`.

    The object stands on the row `foot`; None: on the lower edge of `rect`.
    """

    canvas: Canvas
    rect: Rect
    value: int
    number: int = 0
    flip: bool = False
    foot: float | None = None

    def shape(self, points, color: Rgb, outline: bool = False) -> None:
        """`outline`: this shape is the object's body and also paints the mask."""
        self.shapes([points], color, outline)

    def shapes(self, polygons, color: Rgb, outline: bool = False) -> None:
        value, foot = self.value if outline else None, self.rect[3] if self.foot is None else self.foot
        self.canvas.fill([self._to_canvas(p) for p in polygons], color, value, self.number, foot)

    def _to_canvas(self, points) -> np.ndarray:
        x0, y0, x1, y1 = self.rect
        if self.flip:
            x0, x1 = x1, x0
        return np.asarray(points, np.float32) * (x1 - x0, y1 - y0) + (x0, y0)


def regular_polygon(sides: int, radius: float = 0.5, turn: float = 0.0) -> np.ndarray:
    angles = turn + 2 * np.pi * np.arange(sides) / sides
    return 0.5 + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


CIRCLE_16 = np.stack([np.cos(2 * np.pi * np.arange(16) / 16), np.sin(2 * np.pi * np.arange(16) / 16)], axis=1)


def _disc(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    return CIRCLE_16 * (radius_x, radius_y) + (x, y)


def _box(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


# cars


@dataclass(frozen=True, slots=True)
class CarShape:
    """A side view. `aspect` is length over height; the rest are unit polygons, `trim` in its own colour."""

    aspect: float
    body: tuple
    windows: tuple
    trim: tuple
    trim_color: Rgb
    wheels: tuple[float, float] = (0.22, 0.78)


CAR_SHAPES = {
    "sedan": CarShape(
        2.6,
        ((0, 0.5), (0.22, 0.45), (0.34, 0.1), (0.68, 0.1), (0.82, 0.45), (1, 0.52), (1, 0.85), (0, 0.85)),
        (((0.27, 0.45), (0.36, 0.18), (0.49, 0.18), (0.49, 0.45)),
         ((0.53, 0.45), (0.53, 0.18), (0.65, 0.18), (0.75, 0.45))),
        ((0.0, 0.6), (1.0, 0.6), (1.0, 0.66), (0.0, 0.66)), (60, 60, 62),
    ),
    "van": CarShape(
        1.9,
        ((0, 0.05), (0.72, 0.05), (0.86, 0.42), (1, 0.5), (1, 0.87), (0, 0.87)),
        (((0.62, 0.42), (0.62, 0.14), (0.7, 0.14), (0.81, 0.42)),),
        ((0.08, 0.2), (0.52, 0.2), (0.52, 0.5), (0.08, 0.5)), (225, 225, 225),
    ),
    "pickup": CarShape(
        2.5,
        ((0, 0.5), (0.46, 0.5), (0.46, 0.1), (0.7, 0.1), (0.82, 0.5), (1, 0.55), (1, 0.85), (0, 0.85)),
        (((0.51, 0.47), (0.51, 0.18), (0.67, 0.18), (0.76, 0.47)),),
        ((0.0, 0.5), (0.44, 0.5), (0.44, 0.6), (0.0, 0.6)), (40, 40, 42),
    ),
    "hatchback": CarShape(
        1.75,
        ((0.02, 0.5), (0.1, 0.1), (0.62, 0.08), (0.8, 0.45), (1, 0.52), (1, 0.86), (0, 0.86)),
        (((0.12, 0.45), (0.17, 0.17), (0.36, 0.16), (0.36, 0.45)),
         ((0.41, 0.45), (0.41, 0.16), (0.58, 0.16), (0.71, 0.45))),
        ((0.1, 0.08), (0.62, 0.06), (0.64, 0.14), (0.09, 0.15)), (225, 225, 225),
    ),
}  # fmt: skip
CAR_COLORS = {"red": (190, 45, 40), "blue": (45, 75, 185), "green": (50, 140, 65), "yellow": (215, 180, 50)}
# two shapes a colour and two colours a shape: neither alone tells the class
CAR_CLASSES = tuple(
    (color, shape)
    for colors, shapes in (
        (("red", "blue"), ("sedan", "van")),
        (("green", "yellow"), ("pickup", "hatchback")),
    )
    for color in colors
    for shape in shapes
)


def car_aspect(label: int) -> float:
    return CAR_SHAPES[CAR_CLASSES[label][1]].aspect


def draw_car(canvas: Canvas, rect: Rect, label: int, rng: np.random.Generator, number: int = 0) -> None:
    color, name = CAR_CLASSES[label]
    shape = CAR_SHAPES[name]
    brush = Brush(canvas, rect, VALUE["car"], number, flip=bool(rng.random() < 0.5))
    paint = np.array(CAR_COLORS[color]) * rng.uniform(0.85, 1.12) + rng.normal(0, 8, 3)
    shadow = _disc(0.5, 0.97, 0.52, 0.05)
    brush.shape(shadow, (45, 45, 48))
    brush.shape(shape.body, paint, outline=True)
    brush.shape(_box(0.01, 0.72, 0.99, 0.85), paint * 0.7)
    glass = np.array((70, 90, 110)) * rng.uniform(0.6, 1.5)
    brush.shapes(shape.windows, glass)
    brush.shape(shape.trim, shape.trim_color)
    brush.shape(_box(0.95, 0.56, 1.0, 0.66), (250, 240, 190))
    brush.shape(_box(0.0, 0.56, 0.03, 0.66), (150, 20, 20))
    for x in shape.wheels:
        radius = 0.17
        brush.shape(_disc(x, 0.83, radius / shape.aspect, radius), (25, 25, 28), outline=True)
        brush.shape(_disc(x, 0.83, 0.5 * radius / shape.aspect, 0.5 * radius), (140, 140, 145))


# signs

SIGN_NAMES = ("stop", "limit", "warning", "crossing", "mandatory", "priority")


def draw_sign(
    canvas: Canvas, rect: Rect, label: int, rng: np.random.Generator, number: int, foot: float
) -> None:
    """`foot`: the row on which its pole stands."""
    brush = Brush(canvas, rect, VALUE["traffic sign"], number, foot=foot)
    fade = rng.uniform(0.85, 1.1)
    red, white, black = (200 * fade, 25, 30), (235 * fade,) * 3, (25, 25, 30)
    blue, yellow = (30, 80, 200 * fade), (240 * fade, 200 * fade, 30)
    circle = regular_polygon(24)
    if label == 0:
        brush.shape(regular_polygon(8, 0.53, np.pi / 8), red, outline=True)
        brush.shape(_box(0.18, 0.4, 0.82, 0.6), white)
    elif label == 1:
        brush.shape(circle, red, outline=True)
        brush.shape(regular_polygon(24, 0.35), white)
        brush.shape(_box(0.32, 0.32, 0.44, 0.68), black)
        brush.shape(_box(0.54, 0.32, 0.68, 0.68), black)
    elif label == 2:
        brush.shape([(0.5, 0), (1, 1), (0, 1)], red, outline=True)
        brush.shape([(0.5, 0.28), (0.8, 0.88), (0.2, 0.88)], yellow)
        brush.shape(_box(0.44, 0.45, 0.56, 0.8), black)
    elif label == 3:
        brush.shape(_box(0, 0, 1, 1), blue, outline=True)
        brush.shape([(0.5, 0.12), (0.88, 0.85), (0.12, 0.85)], white)
    elif label == 4:
        brush.shape(circle, blue, outline=True)
        brush.shape(
            [(0.5, 0.15), (0.8, 0.5), (0.6, 0.5), (0.6, 0.85), (0.4, 0.85), (0.4, 0.5), (0.2, 0.5)], white
        )
    else:
        brush.shape([(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)], white, outline=True)
        brush.shape([(0.5, 0.17), (0.83, 0.5), (0.5, 0.83), (0.17, 0.5)], yellow)


# the rest of the street


def draw_pole(canvas: Canvas, x: float, top: float, bottom: float, width: float, number: int = 0) -> None:
    Brush(canvas, (x - width / 2, top, x + width / 2, bottom), VALUE["pole"], number).shape(
        _box(0, 0, 1, 1), (105, 108, 112), outline=True
    )


def draw_person(canvas: Canvas, rect: Rect, rng: np.random.Generator, number: int = 0) -> None:
    brush = Brush(canvas, rect, VALUE["person"], number, flip=bool(rng.random() < 0.5))
    coat, trousers = rng.uniform(30, 220, 3), rng.uniform(20, 110, 3)
    skin = np.array((225, 180, 150)) * rng.uniform(0.5, 1.05)
    stride = rng.uniform(0.0, 0.25)
    brush.shape([(0.3, 0.5), (0.55, 0.5), (0.45 - stride, 1), (0.2 - stride, 1)], trousers, outline=True)
    brush.shape(
        [(0.45, 0.5), (0.7, 0.5), (0.8 + stride, 1), (0.55 + stride, 1)], trousers * 0.9, outline=True
    )
    brush.shape([(0.15, 0.2), (0.85, 0.2), (0.75, 0.58), (0.25, 0.58)], coat, outline=True)
    brush.shape(_disc(0.5, 0.1, 0.24, 0.1), skin, outline=True)


def draw_tree(canvas: Canvas, rect: Rect, rng: np.random.Generator) -> None:
    brush = Brush(canvas, rect, VALUE["vegetation"])
    green = np.array((60, 110, 50)) * rng.uniform(0.7, 1.3) + rng.normal(0, 8, 3)
    brush.shape(_box(0.42, 0.55, 0.58, 1.0), (90, 65, 45), outline=True)
    for _ in range(9):
        x, y, radius = rng.uniform(0.25, 0.75), rng.uniform(0.15, 0.6), rng.uniform(0.18, 0.28)
        brush.shape(_disc(x, y, radius, radius * 0.8), green * rng.uniform(0.75, 1.25), outline=True)


def draw_house(canvas: Canvas, rect: Rect, rng: np.random.Generator) -> None:
    brush = Brush(canvas, rect, VALUE["building"])
    wall = rng.uniform(90, 200) + rng.normal(0, 18, 3)
    glass = wall * 0.45 if rng.random() < 0.7 else np.array((220, 210, 160))
    brush.shape(_box(0, 0, 1, 1), wall, outline=True)
    brush.shape(_box(0, 0, 1, 0.05), wall * 0.6)
    columns, rows = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    wide, tall = 0.5 / columns, 0.45 / rows
    corners = [
        ((c + 0.25) / columns, 0.1 + 0.85 * (r + 0.2) / rows) for c in range(columns) for r in range(rows)
    ]
    brush.shapes([_box(x, y, x + wide, y + tall) for x, y in corners], glass)
