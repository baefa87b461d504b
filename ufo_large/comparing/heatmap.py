"""Cosines as SVG, a square per pair: of balancing methods, with each one's shares of the update."""

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from ufo_large.comparing.replaying import Replayed

CELL, BAR, GAP, LETTER, FOOT = 25, 170, 14, 6.6, 58
FAINTEST = 0.4
"""A cosine up to which a square stays white."""
COLORS = ("#2458d3", "#c4612c", "#14895a", "#b3378f", "#7a828e", "#a8861b", "#3f8ea8", "#8a5bd6")
STYLE = (
    ".h-name{font-size:12px;fill:#24292f}.h-number{font-size:9px;text-anchor:middle}"
    ".h-note{font-size:10.5px;fill:#667085}.h-group{fill:none;stroke:#24292f;stroke-width:1.6}"
)


def draw(found: Replayed) -> str:
    """Return the picture; the groups of `found` are framed."""
    count, left = len(found.methods), margin(found.methods)
    top, side = left, CELL * count
    bars = left + side + GAP
    body = [*names(found.methods, left), *squares(found.cosines_NN, left, FAINTEST)]
    body += [*_groups(found, left, top), *_shares(found, bars, top)]
    note = f"{found.steps} steps; cosine of the combined gradients; frames: methods that do the same here"
    return framed(body, left, side, bars + BAR + 12, note, "Cosines of balancing methods")


def margin(rows: Sequence[str]) -> float:
    """Return the room left of the squares, and above them, that the rows' names take."""
    return 12 + LETTER * max(map(len, rows))


def framed(body: Sequence[str], left: float, side: float, width: float, note: str, label: str) -> str:
    """Return the whole picture, with a note below squares of `side` pixels."""
    below = f'<text class="h-note" x="{left:.0f}" y="{left + side + 20:.0f}">{note}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {left + side + FOOT:.0f}" '
        f'font-family="system-ui, sans-serif" role="img" aria-label="{label}">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" rx="10" fill="#ffffff"/>'
        f"{''.join(body)}{below}</svg>\n"
    )


def names(rows: Sequence[str], left: float) -> Iterator[str]:
    """Yield the rows' names, left of the squares and above them."""
    for i, row in enumerate(rows):
        middle, name = left + CELL * i + CELL / 2 + 4, escape(row)
        yield f'<text class="h-name" x="{left - 6:.1f}" y="{middle:.1f}" text-anchor="end">{name}</text>'
        where = f"translate({middle:.1f} {left - 6:.1f}) rotate(-90)"
        yield f'<text class="h-name" transform="{where}">{name}</text>'


def squares(cosines_NN: np.ndarray, left: float, faintest: float) -> Iterator[str]:
    """Yield a square a pair, the darker the further its cosine is from `faintest`; below zero in red."""
    yield f'<g transform="translate({left:.1f} {left:.1f})" class="h-number">'
    for (i, j), cosine in np.ndenumerate(cosines_NN):
        depth = max(0.0, (abs(cosine) - faintest) / (1 - faintest)) ** 2
        x, y, size = CELL * j, CELL * i, CELL - 1
        fill = f'fill="{COLORS[int(cosine < 0)]}" fill-opacity="{depth:.2f}"'
        yield f'<rect x="{x}" y="{y}" width="{size}" height="{size}" {fill}/>'
        color = "#fff" if depth > 0.5 else "#24292f"
        text = "1" if cosine > 0.995 else f"{cosine:.2f}".replace("0.", ".")
        yield f'<text fill="{color}" x="{x + size // 2}" y="{y + size // 2 + 3}">{text}</text>'
    yield "</g>"


def _groups(found: Replayed, left: float, top: float) -> Iterator[str]:
    begin = 0
    for group in found.groups:
        size = CELL * len(group) - 1
        place = f'x="{left + CELL * begin:.1f}" y="{top + CELL * begin:.1f}"'
        yield f'<rect class="h-group" {place} width="{size}" height="{size}"/>'
        begin += len(group)


def _shares(found: Replayed, left: float, top: float) -> Iterator[str]:
    """Yield a bar a method: the size of each task's share; what points against the update is hollow."""
    for i, method in enumerate(found.methods):
        parts = [found.shares[method].get(task, 0.0) for task in found.tasks]
        total, x, y = sum(map(abs, parts)) or 1.0, left, top + CELL * i + 5
        for index, (task, part) in enumerate(zip(found.tasks, parts, strict=True)):
            wide, color = BAR * abs(part) / total, COLORS[index % len(COLORS)]
            fill = color if part >= 0 else "none"
            title = f"<title>{escape(f'{method}, {task}: {100 * part:.0f} %')}</title>"
            look = f'height="{CELL - 11}" fill="{fill}" stroke="{color}"'
            yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" {look}>{title}</rect>'
            x += wide
    x = left
    yield f'<text class="h-name" x="{left:.1f}" y="{top - 24:.1f}">share of the update</text>'
    for index, task in enumerate(found.tasks):
        color = COLORS[index % len(COLORS)]
        yield f'<text class="h-name" x="{x:.1f}" y="{top - 7:.1f}" style="fill:{color}">{escape(task)}</text>'
        x += 14 + LETTER * len(task)
