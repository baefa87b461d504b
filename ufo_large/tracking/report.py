"""Write a run's report: one HTML file with everything in it, to be opened offline or sent to somebody."""

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from ufo_large.config import read_json, require_inside
from ufo_large.kinds import PredictionExample
from ufo_large.kinds.review import SPREAD, SURE, WORST
from ufo_large.tracking.analysis import FILE_NAME as FIGURES_FILE
from ufo_large.tracking.analysis import drawn, read_figures
from ufo_large.tracking.charts import NUM_COLORS, Line, draw, short_number
from ufo_large.tracking.console import format_duration
from ufo_large.tracking.curves import Curve, curves_of, task_names
from ufo_large.tracking.environment import FILE_NAME as ENVIRONMENT_FILE
from ufo_large.tracking.environment import read_environments
from ufo_large.tracking.examples import CARDS_FILE, FOLDER, read_examples, save_examples
from ufo_large.tracking.jsonl import FILE_NAME as METRICS_LOG
from ufo_large.tracking.jsonl import read_metrics, training_seconds
from ufo_large.tracking.panels import Panel, sections
from ufo_large.tracking.paths import read_paths
from ufo_large.tracking.plan_check import read_plan_check
from ufo_large.tracking.results import FILE_NAME as METRICS_FILE
from ufo_large.tracking.results import read_results

CONFIG_FILE = "config.json"
OF_TRAINING = (CONFIG_FILE, METRICS_LOG, ENVIRONMENT_FILE)
OF_EVALUATION = (METRICS_FILE, FIGURES_FILE, f"{FOLDER}/{CARDS_FILE}")
OF_A_RUN = (*OF_TRAINING, *OF_EVALUATION)
NEUTRAL = NUM_COLORS - 1
ORDER = (WORST, SURE, SPREAD)
LONG_VALUE = 400
SPEEDS = {
    "train/images_per_second": "images/s",
    "train/tokens_per_second": "tokens/s",
    "train/tflops": "TFLOP/s per rank",
    "train/peak_memory_gib": "GiB at most",
}


def write_report(
    workdir: Path, examples: Iterable[PredictionExample] | None = None, results: Path | None = None
) -> Path:
    """Write `<workdir>/report.html` from what lies in the workdir, and return its path.

    Read are metrics.jsonl, metrics.json, config.json, environment.json, plan.json and examples/; what is
    missing is left out and the page says how to get it (but of plan.json, which runs on GPUs alone have).
    `examples`, if given, are drawn and saved there first. `results`: the folder of metrics.json, examples/
    and the page, where it is not the workdir.
    """
    workdir = Path(workdir)
    results = results or workdir
    if not workdir.is_dir():
        raise ValueError(f"{workdir}: no such folder; give the --workdir of a training run")
    if not any((workdir / name).exists() for name in OF_A_RUN):
        raise ValueError(
            f"{workdir}: not a run folder (none of {', '.join(OF_A_RUN)} is there); give the --workdir of a "
            "training run"
        )
    if examples is not None:
        save_examples(results, examples)
    path = results / "report.html"
    path.write_text(render(workdir, results), encoding="utf-8")
    return path


def render(workdir: Path, results: Path) -> str:
    """Return the page as text."""
    here = Path(__file__).parent
    loader = jinja2.FileSystemLoader(here)
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.filters |= {"number": short_number, "percent": _percent}
    entries = read_metrics(workdir / METRICS_LOG)
    curves = curves_of(entries)
    return pages.get_template("report.html").render(
        name=" / ".join([workdir.resolve().name, *([results.name] if results != workdir else [])]),
        css=Markup((here / "report.css").read_text(encoding="utf-8")),
        js=Markup((here / "report.js").read_text(encoding="utf-8")),
        facts=_facts(entries, curves),
        results=read_results(results),
        figures={task: [drawn(one) for one in own] for task, own in read_figures(results).items() if own},
        figures_file=FIGURES_FILE,
        examples=_examples(results),
        sections=_sections(curves),
        paths=read_paths(entries),
        plan=read_plan_check(workdir, entries),
        missing=_missing(workdir, OF_TRAINING) + _missing(results, OF_EVALUATION),
        config=_config_rows(workdir / CONFIG_FILE),
        runs=read_environments(workdir),
    )


def _sections(curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    tasks = task_names(curves)
    steps = np.concatenate([curve.steps_P for curve in curves.values()] or [[0.0]])
    shown = float(steps.min()), float(steps.max())
    return [
        {
            "title": section.title,
            "text": section.text,
            "charts": [_chart(panel, curves, tasks, shown) for panel in section.panels],
        }
        for section in sections(curves)
    ]


def _missing(folder: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if not (folder / name).exists()]


def _chart(
    panel: Panel, curves: Mapping[str, Curve], tasks: Sequence[str], steps: tuple[float, float]
) -> dict[str, Any]:
    """Draw a panel; a task has the same colour everywhere, other lines take the colours that follow."""
    colors = _colors(panel, tasks)
    lines = [
        Line(name, curves[key], color)
        for key, name, color in zip(panel.keys, panel.names, colors, strict=True)
    ]
    chart = draw(panel, lines, steps)
    svg, data = Markup(chart["svg"]), Markup(chart["data"])
    return chart | {"svg": svg, "data": data, "begins_row": panel.begins_row}


def _colors(panel: Panel, tasks: Sequence[str]) -> list[int]:
    """Give a task's first line the task's colour, the others those that follow, a single one grey."""
    colors: list[int] = []
    others = len(tasks) if len(panel.keys) > 1 else NEUTRAL
    for key, name in zip(panel.keys, panel.names, strict=True):
        owner = key.split("/")[0] if name == "total" else name.split("/")[0]
        if owner in tasks and tasks.index(owner) not in colors:
            colors.append(tasks.index(owner))
        else:
            colors.append(others % (2 * NUM_COLORS))
            others += 1
    return colors


def _facts(entries: Sequence[Mapping[str, float]], curves: Mapping[str, Curve]) -> list[tuple[str, str]]:
    """Return the line under the title: (label, value)."""
    if not entries:
        return []
    facts = [("steps", f"{int(entries[-1]['step']):,}".replace(",", " "))]
    if (seconds := training_seconds(entries)) is not None:
        facts.append(("training time", format_duration(seconds)))
    for key, label in SPEEDS.items():
        if key in curves:
            facts.append((label, short_number(curves[key].last)))
    if "train/mfu" in curves:
        facts.append(("MFU", _percent(curves["train/mfu"].last)))
    return facts


def _examples(workdir: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return the example cards by task and the reason they are shown, each with its picture's data address.

    The address is empty where the picture is not there.
    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    folder = workdir / FOLDER
    for card in read_examples(workdir):
        picture = require_inside(folder, card.picture, folder / CARDS_FILE, links=False)
        data = base64.b64encode(picture.read_bytes()).decode("ascii") if picture.is_file() else ""
        image = f"data:image/jpeg;base64,{data}" if data else ""
        of_task = found.setdefault(card.task, {})
        of_task.setdefault(card.group, []).append({"card": card, "image": image})
    return {task: {g: own[g] for g in ORDER if g in own} for task, own in found.items()}


def _config_rows(path: Path) -> list[tuple[str, str]]:
    """Return (dotted path, value) of every leaf of the saved config; a component's name is part of it."""
    if not path.exists():
        return []
    return list(_leaves(read_json(path, "put a copy of the run's own there"), ""))


def _leaves(value: Any, path: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        cut = f"... ({len(value)} entries)" if isinstance(value, list) else "..."
        yield path, text if len(text) <= LONG_VALUE else text[:LONG_VALUE] + cut


def _percent(value: float | None) -> str:
    return "n/a" if value is None or not math.isfinite(value) else f"{100 * value:.1f}\u00a0%"
