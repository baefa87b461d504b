"""Line charts as inline SVG: readable without JavaScript, with the data beside for hover read-outs."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ufo_large.tracking.curves import Curve
from ufo_large.tracking.panels import Panel

WIDTH, HEIGHT = 400.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 42.0, 10.0, 8.0, 22.0
NUM_COLORS = 8


@dataclass(frozen=True, slots=True)
class Line:
    """A curve with the name in the legend and the index of its colour (report.css, --s0 ...)."""

    name: str
    curve: Curve
    color: int


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to pixels; `low, high` are logarithms on a logarithmic axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def pixel(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def draw(panel: Panel, lines: Sequence[Line], steps: tuple[float, float] | None = None) -> dict[str, Any]:
    """Return what the template needs: title, svg, legend, note and the JSON for hovering.

    `steps`: the first and last to show, so that charts side by side have one axis. The vertical axis is
    logarithmic where the panel leaves the scale open and positive values span a factor over 50.
    """
    x_axis, y_axis = _x_axis(panel, lines, steps), _y_axis(panel, lines)
    body = _grid(panel, x_axis, y_axis)
    for line in lines:
        body += _line(line, x_axis, y_axis)
    label = escape(f"{panel.title}: line chart of {', '.join(line.name for line in lines)}")
    svg = (
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{label}">{"".join(body)}'
        f'<line class="cross" y1="{TOP}" y2="{HEIGHT - BOTTOM}" hidden/></svg>'
    )
    return {
        "title": panel.title,
        "svg": svg,
        "legend": [{"name": line.name, "color": line.color % NUM_COLORS} for line in lines],
        "note": " ".join(filter(None, [panel.note, _bad_values(lines)])),
        "log": y_axis.log,
        "data": _hover_data(panel, lines, x_axis),
    }


def linear_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round values (1, 2 or 5 times a power of ten) within [low, high]."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5) if m * power >= raw * 0.999), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten between the logarithms low and high, with 2 and 5 between if those are few."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    every = max(1, round((high - low) / 5))
    steps = (1, 2, 5) if high - low < 2 else (1,)
    values = [m * 10.0**p for p in powers if p % every == 0 for m in steps]
    return [v for v in values if low - 1e-9 <= math.log10(v) <= high + 1e-9]


def short_number(value: float, percent: bool = False) -> str:
    """Return "1.2k", "3e-05", "45 %"."""
    if not math.isfinite(value):
        return "not finite"
    if percent:
        return f"{100 * value:.3g} %"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def _x_axis(panel: Panel, lines: Sequence[Line], steps: tuple[float, float] | None) -> Axis:
    if panel.x_share:
        return Axis(0.0, 1.0, LEFT, WIDTH - RIGHT)
    drawn = np.concatenate([line.curve.steps_P for line in lines])
    low, high = steps or (float(drawn.min()), float(drawn.max()))
    return Axis(low, high if high > low else low + 1, LEFT, WIDTH - RIGHT)


def _y_axis(panel: Panel, lines: Sequence[Line]) -> Axis:
    drawn = np.concatenate([[*line.curve.low_P, *line.curve.high_P] for line in lines])
    drawn = drawn[np.isfinite(drawn)]
    low, high = (float(drawn.min()), float(drawn.max())) if len(drawn) else (0.0, 1.0)
    if panel.scale == "auto" and low > 0 and high > 50 * low:
        low, high = math.log10(low), math.log10(high)
        pad = 0.04 * (high - low)
        return Axis(low - pad, high + pad, HEIGHT - BOTTOM, TOP, log=True)
    if low >= 0 and low < 0.6 * high:
        low = 0.0
    pad = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    bounds = (low if low == 0 and high > 0 else low - pad, high + pad)
    low, high = (b if limit is None else limit for b, limit in zip(bounds, panel.limits, strict=True))
    return Axis(low, high, HEIGHT - BOTTOM, TOP)


def _grid(panel: Panel, x_axis: Axis, y_axis: Axis) -> list[str]:
    parts = []
    for value in y_axis.ticks():
        y = y_axis.pixel(value)
        zero = " zero" if value == 0 and not y_axis.log else ""
        parts.append(f'<line class="grid{zero}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        text = short_number(value, panel.percent)
        parts.append(f'<text class="tick" x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
    ticks = [t for t in linear_ticks(x_axis.low, x_axis.high, 6) if panel.x_share or t == int(t)]
    for value in ticks:
        x, y = x_axis.pixel(value), HEIGHT - 6
        anchor = "end" if x > WIDTH - 24 else "middle"
        text = short_number(value, panel.x_share)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{text}</text>')
    return parts


def _line(line: Line, x_axis: Axis, y_axis: Axis) -> list[str]:
    curve, name = line.curve, escape(line.name, quote=True)
    dash = " dashed" if line.color >= NUM_COLORS else ""
    parts = [f'<g class="line{dash}" data-line="{name}" style="--c:var(--s{line.color % NUM_COLORS})">']
    if np.nanmax(curve.high_P - curve.low_P, initial=0.0) > 0:
        parts.append(f'<path class="band" d="{_band_path(curve, x_axis, y_axis)}"/>')
    elif curve.smooth_P is not None:
        parts.append(f'<path class="raw" d="{_path(curve.steps_P, curve.values_P, x_axis, y_axis)}"/>')
    main = curve.values_P if curve.smooth_P is None else curve.smooth_P
    parts.append(f'<path class="main" d="{_path(curve.steps_P, main, x_axis, y_axis)}"/>')
    if len(curve.steps_P) <= 20:
        parts += [
            f'<circle cx="{x_axis.pixel(s):.1f}" cy="{y_axis.pixel(v):.1f}" r="2.6"/>'
            for s, v in zip(curve.steps_P, curve.values_P, strict=True)
            if math.isfinite(v)
        ]
    for step in curve.bad_steps[:100]:
        parts.append(f'<path class="bad" d="M{x_axis.pixel(step):.1f} {HEIGHT - BOTTOM}l-3 5h6z"/>')
    return [*parts, "</g>"]


def _path(steps_P: np.ndarray, values_P: np.ndarray, x_axis: Axis, y_axis: Axis) -> str:
    text, pen_down = [], False
    for step, value in zip(steps_P, values_P, strict=True):
        if not math.isfinite(value) or (y_axis.log and value <= 0):
            pen_down = False
            continue
        text.append(f"{'L' if pen_down else 'M'}{x_axis.pixel(step):.1f} {y_axis.pixel(value):.1f}")
        pen_down = True
    return "".join(text)


def _band_path(curve: Curve, x_axis: Axis, y_axis: Axis) -> str:
    finite = np.isfinite(curve.low_P)
    steps, low, high = curve.steps_P[finite], curve.low_P[finite], curve.high_P[finite]
    there = _path(steps, high, x_axis, y_axis)
    back = _path(steps[::-1], low[::-1], x_axis, y_axis)
    return there + "L" + back[1:] + "Z" if back else ""


def _bad_values(lines: Sequence[Line]) -> str:
    """Lines such as "dec: 2 of the values are not finite"; the triangles on the axis show where."""
    bad = [(line.name, len(line.curve.bad_steps)) for line in lines if line.curve.bad_steps]
    return "Not finite: " + ", ".join(f"{name} {n}x" for name, n in bad) + "." if bad else ""


def _hover_data(panel: Panel, lines: Sequence[Line], x_axis: Axis) -> str:
    drawn = [
        {
            "name": line.name,
            "color": line.color % NUM_COLORS,
            "x": [_rounded(s) if panel.x_share else int(s) for s in line.curve.steps_P],
            "y": [_rounded(v) for v in line.curve.values_P],
        }
        for line in lines
    ]
    frame = {
        "x": [x_axis.low, x_axis.high, LEFT, WIDTH - RIGHT],
        "xName": panel.x_name,
        "xShare": panel.x_share,
        "width": WIDTH,
        "percent": panel.percent,
    }
    return script_json({"frame": frame, "lines": drawn})


def script_json(value: Any) -> str:
    """Return JSON that can stand in a script element: nothing in it ends that."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
