"""A confusion matrix as inline SVG: right answers in one colour, wrong ones in another, by their share.

Legend: K classes.
"""

from html import escape
from typing import Any

import numpy as np
from markupsafe import Markup

from ufo_large.kinds.figures import Matrix
from ufo_large.tracking.charts import script_json

WIDTH = 420.0
MIN_CELL, MAX_CELL = 11.0, 64.0
LETTER, MAX_LETTERS = 7.0, 18
NUMBERS_UP_TO = 12
FAINTEST = 0.12
"""Of a cell that holds anything: a single wrong image among thousands must be seen."""


def draw_matrix(figure: Matrix) -> dict[str, Any]:
    """Return svg, the JSON for hovering, and whether it wants the page's width."""
    counts_KK = np.array(figure.counts, dtype=object)
    totals_K = counts_KK.sum(axis=1)
    share_KK = np.array(
        [[n / total if total else 0.0 for n in row] for row, total in zip(counts_KK, totals_K, strict=True)]
    )
    size, names = len(figure.names), [_cut(name) for name in figure.names]
    margin = 10 + LETTER * max(map(len, names))
    cell = min(MAX_CELL, max(MIN_CELL, (WIDTH - margin) / size))
    body = _labels(names, margin, cell)
    for true, said in zip(*share_KK.nonzero(), strict=True):
        body += _cell(float(share_KK[true, said]), int(true), int(said), margin, cell, size <= NUMBERS_UP_TO)
    side = margin + size * cell + 1
    label = escape(f"{figure.title}: {size} classes, rows true, columns predicted")
    svg = f'<svg viewBox="0 0 {side:.0f} {side:.0f}" role="img" aria-label="{label}">{"".join(body)}</svg>'
    frame = {"margin": margin, "cell": cell, "side": side, "unit": figure.unit}
    data = script_json({"frame": frame, "names": figure.names, "counts": figure.counts})
    return {"svg": Markup(svg), "data": Markup(data), "wide": size > NUMBERS_UP_TO}


def _cut(name: str) -> str:
    """Names of many classes often begin alike, so the end of a long one stays."""
    half = MAX_LETTERS // 2
    return name if len(name) <= MAX_LETTERS else f"{name[: half - 1]}…{name[-half:]}"


def _labels(names: list[str], margin: float, cell: float) -> list[str]:
    font = min(11.0, cell - 1)
    parts = []
    for index, name in enumerate(names):
        middle, end, text = margin + (index + 0.5) * cell + font / 3, margin - 5, escape(name)
        style = f'class="tick" style="font-size:{font:.1f}px"'
        parts.append(f'<text {style} x="{end:.1f}" y="{middle:.1f}" text-anchor="end">{text}</text>')
        parts.append(f'<text {style} transform="translate({middle:.1f} {end:.1f}) rotate(-90)">{text}</text>')
    return parts


def _cell(share: float, true: int, said: int, margin: float, cell: float, number: bool) -> list[str]:
    x, y, size = margin + said * cell, margin + true * cell, cell - 1
    opacity = FAINTEST + (1 - FAINTEST) * share**0.7
    kind = "hit" if true == said else "miss"
    parts = [
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{size:.1f}" '
        f'fill-opacity="{opacity:.2f}"/>'
    ]
    if number:
        font, strong = min(13.0, cell / 2.4), " strong" if opacity > 0.6 else ""
        text = f"{100 * share:.0f}" if share >= 0.01 else "&lt;1"
        middle = f'x="{x + size / 2:.1f}" y="{y + size / 2 + font / 3:.1f}"'
        parts.append(
            f'<text class="share{strong}" style="font-size:{font:.1f}px" {middle} text-anchor="middle">'
            f"{text}</text>"
        )
    return parts
