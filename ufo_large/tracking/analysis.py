"""Read and draw what evaluation left to look at of each task, `figures.json`."""

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ufo_large.config import Unreadable, read_json
from ufo_large.kinds.figures import MAX_FIGURES, Bars, Figure, Matrix, Pairs, Plot, figure_from_json
from ufo_large.tracking.charts import NUM_COLORS, Line, draw
from ufo_large.tracking.curves import Curve
from ufo_large.tracking.matrix import draw_matrix
from ufo_large.tracking.panels import Panel

FILE_NAME = "figures.json"
REMEDY = "score the run again with eval/run_all.py, which writes it anew"
LIMIT = 8 << 20
MAX_TASKS = 100
DASHED_GREY = 2 * NUM_COLORS - 1


def read_figures(folder: Path) -> dict[str, list[Figure]]:
    """Return each task's figures; empty where there is no file. Raises Unreadable for a damaged one."""
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return {}
    content = read_json(path, REMEDY, limit=LIMIT)
    try:
        tasks = list(content["tasks"].items())[:MAX_TASKS]
        return {task: [figure_from_json(one) for one in own[:MAX_FIGURES]] for task, own in tasks}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise Unreadable(path, f"not the figures of an evaluation ({error})", REMEDY) from None


def drawn(figure: Figure) -> dict[str, Any]:
    """Return what the template shows of a figure."""
    shown = {"type": figure.type, "title": figure.title, "note": figure.note}
    match figure:
        case Plot():
            return shown | _plotted(figure)
        case Matrix():
            return shown | draw_matrix(figure)
        case Bars():
            return shown | {"rows": figure.rows}
        case Pairs():
            return shown | {"rows": figure.rows, "unit": figure.unit}


def _plotted(figure: Plot) -> dict[str, Any]:
    names = tuple(trace.name for trace in figure.traces)
    panel = Panel(
        figure.title,
        names,
        names,
        scale="linear",
        limits=(0.0, 1.0),
        percent=True,
        x_name=figure.x_name,
        x_share=True,
    )
    lines = []
    for number, trace in enumerate(figure.traces):
        x, y = np.array(trace.x, float), np.array(trace.y, float)
        curve = Curve(trace.name, x, y, y, y, smooth_P=None, bad_steps=())
        lines.append(Line(trace.name, curve, DASHED_GREY if trace.dashed else number % (NUM_COLORS - 1)))
    chart = draw(panel, lines)
    return {
        "legend": chart["legend"],
        "svg": Markup(chart["svg"]),
        "data": Markup(chart["data"]),
        "axes": f"{figure.y_name} over {figure.x_name}",
    }
