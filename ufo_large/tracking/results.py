"""Read the scores of a run, `metrics.json`, into rows that the report shows beside the trivial baselines."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufo_large.config import read_json
from ufo_large.kinds import KINDS, Headline

FILE_NAME = "metrics.json"


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One headline metric; `baselines`: (name, value) of what needs no training, best first."""

    key: str
    label: str
    value: float
    higher_is_better: bool = True
    baselines: tuple[tuple[str, float], ...] = ()

    @property
    def verdict(self) -> str:
        """Return how the value stands to the best baseline, in words."""
        if not self.baselines or not math.isfinite(self.value):
            return ""
        best = self.baselines[0][1]
        points = round(100 * (self.value - best), 1) * (1 if self.higher_is_better else -1)
        if points == 0:
            return "as good as it"
        above, below = ("above", "below") if self.higher_is_better else ("better than", "worse than")
        return f"{points:.1f} points {above} it" if points > 0 else f"{-points:.1f} points {below} it"


@dataclass(frozen=True, slots=True)
class ClassTable:
    """A metric of every class, worst first."""

    title: str
    rows: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Results:
    """What `metrics.json` says; `other` holds the remaining numbers by their path.

    `inputs`: (task, how its images were shown to the network).
    """

    protocol: str
    split: str
    score: float | None
    headline: tuple[MetricRow, ...]
    classes: tuple[ClassTable, ...]
    other: tuple[tuple[str, float], ...]
    inputs: tuple[tuple[str, str], ...] = ()


def read_results(workdir: Path) -> Results | None:
    """Return the run's results, or None where it has not been scored. Raises ValueError for a broken file.

    Read are numbers at any depth. `baselines` is either {metric: value}, {metric: {name: value}} or
    {name: {metric: value}}. A metric that is null is left out. Per-class values have
    paths that end in <metric>/<class>, such as top1/<class>.
    """
    path = Path(workdir) / FILE_NAME
    if not path.exists():
        return None
    return parse_results(read_json(path, "score the run again with eval/run_all.py"))


def parse_results(content: Mapping[str, Any]) -> Results:
    baselines = content.get("baselines") or {}
    numbers = flatten({k: v for k, v in content.items() if k not in ("baselines", "tasks")})
    headline, classes, other = [], {}, []
    labels = {kind.headline.name: kind.headline for kind in KINDS.values()}
    per_class_titles = {name: title for kind in KINDS.values() for name, title in kind.class_metrics.items()}
    pattern = re.compile(rf"(?:^|/)({'|'.join(map(re.escape, per_class_titles))})/(.+)$")
    for path, value in numbers.items():
        per_class = pattern.search(path)
        if per_class:
            place = path[: per_class.start()].rsplit("/", 1)[-1]
            title = " of ".join(filter(None, [per_class_titles[per_class[1]], place]))
            classes.setdefault(title, []).append((per_class[2], value))
        elif path in labels:
            if content[path] is None:
                continue  # the test set has no task of that kind
            more = labels[path].higher_is_better
            own = _baselines_of(path, baselines)
            own = own if more else own[::-1]
            of_tasks = _rows_of_tasks(path, labels[path], content.get("tasks") or {})
            label = labels[path].label + (f", mean of {len(of_tasks)} tasks" if of_tasks else "")
            headline += [*of_tasks, MetricRow(path, label, value, more, own)]
        elif path != "score":
            other.append((path.removeprefix("details/"), value))
    tables = [ClassTable(title, tuple(sorted(rows, key=_worst_first))) for title, rows in classes.items()]
    protocol = content.get("protocol", "")
    score = numbers.get("score")
    split = str(content.get("split", ""))
    inputs = tuple((str(task), str(told)) for task, told in (content.get("inputs") or {}).items())
    return Results(str(protocol), split, score, tuple(headline), tuple(tables), tuple(other), inputs)


def _rows_of_tasks(metric: str, headline: Headline, tasks: Mapping[str, Any]) -> list[MetricRow]:
    """Return a row per task where several have the metric, whose mean then stands below them."""
    own = {task: figures[metric] for task, figures in tasks.items() if figures.get(metric) is not None}
    return [
        MetricRow(f"{task}/{metric}", f"{headline.label} of {task}", value, headline.higher_is_better)
        for task, value in (own.items() if len(own) > 1 else ())
    ]


def flatten(value: Any, path: str = "") -> dict[str, float]:
    """Return the numbers of nested dicts by slash-joined path; null is NaN, other leaves are left out."""
    if isinstance(value, Mapping):
        found: dict[str, float] = {}
        for key, item in value.items():
            found |= flatten(item, f"{path}/{key}" if path else str(key))
        return found
    if value is None:
        return {path: math.nan}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {path: float(value)}
    return {}


def _baselines_of(metric: str, baselines: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    own = baselines.get(metric)
    if isinstance(own, Mapping):
        pairs = flatten(own)
    elif own is not None:
        pairs = {"trivial": float(own)}
    else:
        pairs = {n: v[metric] for n, v in baselines.items() if isinstance(v, Mapping) and metric in v}
    finite = [(n.replace("_", " "), float(v)) for n, v in pairs.items() if v is not None and math.isfinite(v)]
    return tuple(sorted(finite, key=lambda pair: -pair[1]))


def _worst_first(row: tuple[str, float]) -> tuple[float, str]:
    return (row[1] if math.isfinite(row[1]) else -1.0, row[0])
