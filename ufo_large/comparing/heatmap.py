"""How alike balancing methods are, as SVG: a square per pair, and each method's shares of the update."""

from collections.abc import Iterator
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
    count, left = len(found.methods), 12 + LETTER * max(map(len, found.methods))
    top, side = left, CELL * count
    bars, width = left + side + GAP, left + side + GAP + BAR + 12
    body = [*_names(found, left, top), *_squares(found, left, top), *_groups(found, left, top)]
    body += _shares(found, bars, top)
    note = f"{found.steps} steps; cosine of the combined gradients; frames: methods that do the same here"
    body.append(f'<text class="h-note" x="{left:.0f}" y="{top + side + 20:.0f}">{note}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {top + side + FOOT:.0f}" '
        'font-family="system-ui, sans-serif" role="img" aria-label="Cosines of balancing methods">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" rx="10" fill="#ffffff"/>'
        f"{''.join(body)}</svg>\n"
    )


def _names(found: Replayed, left: float, top: float) -> Iterator[str]:
    for i, method in enumerate(found.methods):
        middle, name = CELL * i + CELL / 2 + 4, escape(method)
        place = f'x="{left - 6:.1f}" y="{top + middle:.1f}" text-anchor="end"'
        yield f'<text class="h-name" {place}>{name}</text>'
        where = f"translate({left + middle:.1f} {top - 6:.1f}) rotate(-90)"
        yield f'<text class="h-name" transform="{where}">{name}</text>'


def _squares(found: Replayed, left: float, top: float) -> Iterator[str]:
    yield f'<g transform="translate({left:.1f} {top:.1f})" fill="#2458d3" class="h-number">'
    for (i, j), cosine in np.ndenumerate(found.cosines_NN):
        depth = max(0.0, (cosine - FAINTEST) / (1 - FAINTEST)) ** 2
        x, y, size = CELL * j, CELL * i, CELL - 1
        yield f'<rect x="{x}" y="{y}" width="{size}" height="{size}" fill-opacity="{depth:.2f}"/>'
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
