"""Compose the synthetic world: streets with signs, cars and people, and close-ups of the same cars.

A street is painted at twice its size, far things first, then lit, blurred by the shrinking, and given
sensor noise. Boxes of signs that something else hides are left out.

Depth is that of a pinhole camera CAMERA_METRES above a flat ground, its focal length FOCAL_HEIGHTS times the
height of the picture: a point of the ground `v` rows below the horizon is CAMERA_METRES * focal / v away.
Whatever stands on the ground is a plane at the depth of its foot, so houses and trees are at 60 m.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from ufo_large.data.scene_objects import (
    CAR_CLASSES,
    LIES_FLAT,
    SIGN_NAMES,
    VALUE,
    Canvas,
    car_aspect,
    draw_car,
    draw_house,
    draw_person,
    draw_pole,
    draw_sign,
    draw_tree,
)
from ufo_large.data.weather import CLEAR, Weather

SUPERSAMPLING = 2
CENTRES = slice(
    SUPERSAMPLING // 2, None, SUPERSAMPLING
)  # canvas rows or columns amid the pixels of the picture
CAMERA_METRES = 1.5
FOCAL_HEIGHTS = 2.0
FAR_SIDE = 0.05  # feet of houses and trees below the horizon, as a share of the height
MIN_VISIBLE = 0.6
POLE_NUMBER = 255

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """`rgb_HW3` uint8, `classes_HW` uint8 mask values, and the visible signs as (box xyxy, label).

    `depth_HW` is float32 metres along the optical axis; 0 = none, for the sky.
    """

    rgb_HW3: np.ndarray
    classes_HW: np.ndarray
    depth_HW: np.ndarray
    signs: tuple[tuple[Box, int], ...]


@dataclass(slots=True)
class _Street:
    """The ground plan: where the horizon is, and how wide the road is at a height."""

    canvas: Canvas
    rng: np.random.Generator
    horizon: float
    vanishing_x: float
    road_left: float
    road_right: float

    def road_edges(self, y: float) -> tuple[float, float]:
        nearness = (y - self.horizon) / (self.canvas.height - self.horizon)
        return (
            self.vanishing_x + (self.road_left - self.vanishing_x) * nearness,
            self.vanishing_x + (self.road_right - self.vanishing_x) * nearness,
        )

    def depth(self) -> np.ndarray:
        """Return the metres to what every pixel of the picture shows, float32 [H, W]; 0 for the sky."""
        rows_H1 = np.arange(self.canvas.height, dtype=np.float64)[CENTRES, None]
        feet_HW = self.canvas.feet_HW[CENTRES, CENTRES]
        below_HW = np.where(feet_HW == LIES_FLAT, rows_H1, feet_HW) - self.horizon
        scale = CAMERA_METRES * FOCAL_HEIGHTS * self.canvas.height
        depth_HW = np.divide(scale, below_HW, out=np.zeros_like(below_HW), where=below_HW > 0)
        return depth_HW.astype(np.float32)


def render_street(height: int, width: int, rng: np.random.Generator, weather: Weather = CLEAR) -> Scene:
    """Paint one street of height x width pixels."""
    street = _ground(height * SUPERSAMPLING, width * SUPERSAMPLING, rng)
    signs = _populate(street)
    return _develop(street, signs, height, width, weather)


def render_close_up(
    height: int, width: int, label: int, rng: np.random.Generator, weather: Weather = CLEAR
) -> Scene:
    """Paint one car of class `label` large on a piece of street, sometimes half behind a pole or a person."""
    street = _ground(height * SUPERSAMPLING, width * SUPERSAMPLING, rng)
    canvas = street.canvas
    length = rng.uniform(0.72, 0.95) * canvas.width
    tall = length / car_aspect(label) * rng.uniform(0.92, 1.08)
    x = rng.uniform(0.1, 0.9) * (canvas.width - length)
    bottom = canvas.height * rng.uniform(0.74, 0.9)
    draw_car(canvas, (x, bottom - tall, x + length, bottom), label, rng)
    if rng.random() < 0.12:
        _occlude(street, x + length * rng.uniform(0.1, 0.9))
    return _develop(street, [], height, width, weather)


def _occlude(street: _Street, x: float) -> None:
    canvas, rng = street.canvas, street.rng
    if rng.random() < 0.5:
        draw_pole(canvas, x, 0, canvas.height, 0.04 * canvas.width)
    else:
        tall = canvas.height * rng.uniform(0.4, 0.6)
        draw_person(canvas, (x, canvas.height - tall, x + 0.3 * tall, canvas.height), rng)


def _ground(height: int, width: int, rng: np.random.Generator) -> _Street:
    """Paint sky, houses, trees, pavement and road."""
    canvas = Canvas(height, width)
    street = _Street(
        canvas,
        rng,
        horizon=height * rng.uniform(0.4, 0.55),
        vanishing_x=width * rng.uniform(0.3, 0.7),
        road_left=width * rng.uniform(-0.4, 0.15),
        road_right=width * rng.uniform(0.85, 1.4),
    )
    _paint_sky(street)
    _paint_far_side(street)
    _paint_floor(street)
    return street


def _paint_sky(street: _Street) -> None:
    canvas, rng = street.canvas, street.rng
    top, bottom = np.array((90, 140, 210.0)), np.array((190, 205, 225.0))
    if rng.random() < 0.4:
        top = bottom = np.array((175, 180, 188.0))
    top, bottom = top * rng.uniform(0.8, 1.15), bottom * rng.uniform(0.85, 1.1)
    blend_H1 = np.linspace(0, 1, canvas.height)[:, None]
    column_H13 = np.clip(top * (1 - blend_H1) + bottom * blend_H1, 0, 255).astype(np.uint8)[:, None]
    canvas.rgb_HW3 = cv2.resize(column_H13, (canvas.width, canvas.height), interpolation=cv2.INTER_NEAREST)
    canvas.classes_HW[:] = VALUE["sky"]


def _paint_far_side(street: _Street) -> None:
    """Houses and trees along both sides, higher where the street is nearer."""
    canvas, rng = street.canvas, street.rng
    x = -0.1 * canvas.width
    while x < canvas.width:
        wide = canvas.width * rng.uniform(0.1, 0.25)
        nearness = min(1.0, abs(x + wide / 2 - street.vanishing_x) / (0.6 * canvas.width))
        tall = street.horizon * (0.25 + 0.75 * nearness) * rng.uniform(0.6, 1.15)
        bottom = street.horizon + canvas.height * FAR_SIDE
        kind = rng.random()
        if kind < 0.65:
            draw_house(canvas, (x, bottom - tall, x + wide, bottom), rng)
        elif kind < 0.9:
            draw_tree(canvas, (x, bottom - tall, x + wide, bottom), rng)
        x += wide * rng.uniform(0.8, 1.1)


def _paint_floor(street: _Street) -> None:
    canvas, rng = street.canvas, street.rng
    height, width, y = canvas.height, canvas.width, street.horizon
    paving = np.array((165, 155, 145)) * rng.uniform(0.8, 1.15)
    asphalt = np.array((88, 88, 92)) * rng.uniform(0.75, 1.25)
    left, right = street.road_edges(height)
    center, narrow = street.vanishing_x, 0.02 * width
    canvas.fill([[(0, y), (width, y), (width, height), (0, height)]], paving, VALUE["sidewalk"])
    if rng.random() < 0.5:
        grass = np.array((85, 130, 60)) * rng.uniform(0.8, 1.2)
        for edge, outwards in ((right, width), (left, -width)):
            stripe = [(center, y), (edge + 0.9 * outwards, height), (edge + 0.35 * outwards, height)]
            canvas.fill([stripe], grass, VALUE["vegetation"])
    road = [(center - narrow, y), (center + narrow, y), (right, height), (left, height)]
    canvas.fill([road], asphalt, VALUE["road"])
    for start in np.linspace(0.1, 0.9, 5) + rng.uniform(-0.05, 0.05):
        _paint_lane_mark(street, start)


def _paint_lane_mark(street: _Street, start: float) -> None:
    canvas = street.canvas
    points = []
    for nearness, side in ((start, -1), (start, 1), (start + 0.08, 1), (start + 0.08, -1)):
        y = street.horizon + nearness * (canvas.height - street.horizon)
        left, right = street.road_edges(y)
        points.append(((left + right) / 2 + side * 0.012 * (right - left), y))
    canvas.fill([points], (215, 215, 205))


@dataclass(frozen=True, slots=True)
class _Sign:
    """A sign as painted: `whole` counts its pixels before anything stands in front of it."""

    box: Box
    label: int
    number: int
    whole: int


def _populate(street: _Street) -> list[_Sign]:
    """Add cars, people and signs, far ones first."""
    canvas, rng = street.canvas, street.rng
    plan = [(_place_car, d) for d in rng.uniform(0.12, 0.8, rng.integers(1, 4))]
    plan += [(_place_person, d) for d in rng.uniform(0.15, 0.8, rng.integers(0, 4))]
    plan += [(_place_sign, d) for d in rng.uniform(0.1, 0.7, rng.integers(1, 5))]
    signs = []
    for number, (place, nearness) in enumerate(sorted(plan, key=lambda p: p[1]), 1):
        y = street.horizon + nearness * (canvas.height - street.horizon)
        signs.append(place(street, y, nearness, number))
    return [sign for sign in signs if sign is not None]


def _place_car(street: _Street, y: float, nearness: float, number: int) -> None:
    rng = street.rng
    left, right = street.road_edges(y)
    label = int(rng.integers(len(CAR_CLASSES)))
    tall = street.canvas.height * (0.08 + 0.3 * nearness)
    length = tall * car_aspect(label)
    x = rng.uniform(left, max(left + 1, right - length))
    draw_car(street.canvas, (x, y - tall, x + length, y), label, rng, number)


def _beside_road(street: _Street, y: float) -> float:
    """A place on the pavement, or at the road's edge where the pavement is out of the picture."""
    left, right = street.road_edges(y)
    width, rng = street.canvas.width, street.rng
    places = [rng.uniform(0.02, 1) * left, right + rng.uniform(0, 0.98) * (width - right)]
    inside = [p for p in places if 0.03 * width < p < 0.97 * width]
    return float(rng.choice(inside)) if inside else float(width * rng.choice((0.06, 0.94)))


def _place_person(street: _Street, y: float, nearness: float, number: int) -> None:
    rng = street.rng
    tall = street.canvas.height * (0.14 + 0.32 * nearness) * rng.uniform(0.9, 1.1)
    x = _beside_road(street, y)
    draw_person(street.canvas, (x - 0.17 * tall, y - tall, x + 0.17 * tall, y), rng, number)


def _place_sign(street: _Street, y: float, nearness: float, number: int) -> _Sign:
    canvas, rng = street.canvas, street.rng
    label = int(rng.integers(len(SIGN_NAMES)))
    side = canvas.height * (0.085 + 0.12 * nearness) * rng.uniform(0.95, 1.1)
    x = min(max(_beside_road(street, y), 0.6 * side), canvas.width - 0.6 * side)
    middle = max(y - side * rng.uniform(1.8, 3.2), 0.6 * side)
    draw_pole(canvas, x, middle, y, max(0.022 * canvas.height, 0.16 * side), POLE_NUMBER)
    box = (x - side / 2, middle - side / 2, x + side / 2, middle + side / 2)
    draw_sign(canvas, box, label, rng, number, foot=y)
    return _Sign(box, label, number, int((canvas.objects_HW == number).sum()))


def _develop(street: _Street, signs: list[_Sign], height: int, width: int, weather: Weather) -> Scene:
    """Light the scene, shrink it, add weather and noise, and keep the signs that nothing hides."""
    canvas, rng = street.canvas, street.rng
    rgb = cv2.resize(canvas.rgb_HW3, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    slope = np.linspace(1 - rng.uniform(0, 0.15), 1 + rng.uniform(0, 0.15), width, dtype=np.float32)
    tint = np.float32(rng.uniform(0.6, 1.15) * rng.uniform(0.94, 1.06, 3))
    rgb *= slope[:: rng.choice((-1, 1)), None] * tint
    depth_HW = street.depth()
    rgb = weather.seen(rgb, depth_HW, rng)
    rgb += rng.standard_normal(rgb.shape, np.float32) * rng.uniform(2, 8)
    kept = tuple(
        (tuple(v / SUPERSAMPLING for v in sign.box), sign.label)
        for sign in signs
        if (canvas.objects_HW == sign.number).sum() >= MIN_VISIBLE * sign.whole
    )
    return Scene(
        rgb_HW3=rgb.clip(0, 255).astype(np.uint8),
        classes_HW=np.ascontiguousarray(canvas.classes_HW[CENTRES, CENTRES]),
        depth_HW=depth_HW,
        signs=kept,
    )
