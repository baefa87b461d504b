"""One picture of a comparison, as SVG: a dot per run, a bar per mean, a dashed line for single tasks."""

from collections.abc import Mapping, Sequence
from html import escape

from ufo_large.comparing.figures import Row
from ufo_large.comparing.plan import SUM
from ufo_large.tracking.charts import linear_ticks

LETTER, ROW, PANEL, GAP, TOP, BOTTOM = 6.4, 24, 190, 22, 34, 44
COLORS = {
    "single": "#c4612c",
    "sum": "#7a828e",
    "router": "#2458d3",
    "balancer": "#14895a",
    "both": "#b3378f",
    "recipe": "#7a828e",
    "change": "#2458d3",
}
STYLE = (
    ".c-name,.c-title{font-size:12px;fill:#24292f}.c-title{font-weight:600}.c-tick{font-size:10.5px;fill:#667085}"
    ".c-grid{stroke:#e6e8ec}.c-single{stroke:#c4612c;stroke-width:1.5;stroke-dasharray:5 4}"
    ".c-mean{stroke-width:3;stroke-linecap:round}.c-run{fill-opacity:.55}"
)
"""The names are its own: the page that shows the picture has styles too."""
DELTA = "delta_m"


def draw(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    """Return the picture: a panel per metric and one for delta-m, a line per joint row; all in per cent."""
    joint = [row for row in rows if not row.is_single and not row.is_trial]
    left = 24 + LETTER * max((len(row.label) for row in joint), default=0)
    panels = {metric: title for metric, title in titles.items() if metric != "score"}
    panels |= {DELTA: "delta-m"} if any(row.gains for row in joint) else {}
    width, height = left + len(panels) * (PANEL + GAP), TOP + ROW * len(joint) + BOTTOM
    x = f'x="{left - 14:.0f}" text-anchor="end"'
    body = [
        f'<text class="c-name" {x} y="{_y(i) + 4}">{escape(row.label)}</text>' for i, row in enumerate(joint)
    ]
    for index, (metric, title) in enumerate(panels.items()):
        start = left + index * (PANEL + GAP)
        body += _panel(metric, title, joint, [row for row in rows if row.is_single], start)
    dashed = "; dashed: single-task training" if len(joint) < len(rows) else ""
    body.append(
        f'<text class="c-tick" x="{left:.0f}" y="{height - 6}">per cent; a dot per run, a bar per mean'
        f"{dashed}</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        'font-family="system-ui, sans-serif" role="img" aria-label="Runs of a comparison">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" rx="10" fill="#ffffff"/>'
        f"{''.join(body)}</svg>\n"
    )


def _panel(metric: str, title: str, joint: Sequence[Row], singles: Sequence[Row], start: float) -> list[str]:
    """Draw one metric: grid, the single-task mean, and each row's runs with their mean."""
    values = [[100 * v for v in _values(row, metric)] for row in joint]
    alone = [100 * v for row in singles for v in _values(row, metric)]
    base = 0.0 if metric == DELTA else sum(alone) / len(alone) if alone else None
    shown = [v for own in values for v in own] + ([] if base is None else [base])
    found = [f'<text class="c-title" x="{start:.1f}" y="20">{escape(title)}</text>']
    if not shown:
        return found
    low, high = min(shown), max(shown)
    pad = 0.06 * (high - low) or 1.0
    low, high, end = low - pad, high + pad, _y(len(joint)) - ROW / 2
    place = lambda value: start + (value - low) / (high - low) * PANEL
    for tick in linear_ticks(low, high):
        x = f"{place(tick):.1f}"
        found.append(f'<line class="c-grid" x1="{x}" x2="{x}" y1="{TOP - 4}" y2="{end}"/>')
        found.append(f'<text class="c-tick" x="{x}" y="{end + 14}" text-anchor="middle">{tick:g}</text>')
    if base is not None:
        x = f"{place(base):.1f}"
        found.append(f'<line class="c-single" x1="{x}" x2="{x}" y1="{TOP - 4}" y2="{end}"/>')
    for i, (row, own) in enumerate(zip(joint, values, strict=True)):
        color, y = _color(row.label), _y(i)
        found += [
            f'<circle class="c-run" cx="{place(v):.1f}" cy="{y}" r="4" style="fill:{color}"/>' for v in own
        ]
        if own:
            x = f"{place(sum(own) / len(own)):.1f}"
            found.append(
                f'<line class="c-mean" x1="{x}" x2="{x}" y1="{y - 8}" y2="{y + 8}" style="stroke:{color}"/>'
            )
    return found


def _values(row: Row, metric: str) -> list[float]:
    """Return the row's figure, or its gain over single-task training, by seed."""
    return list((row.gains if metric == DELTA else row.values.get(metric, {})).values())


def _y(index: int) -> float:
    return TOP + ROW * index + ROW / 2


def _color(label: str) -> str:
    kind = label.partition(":")[0]
    return COLORS["sum"] if label == SUM else COLORS.get(kind, COLORS["balancer"])
