"""Read the scores of a run, `metrics.json`, into rows that the report shows beside the trivial baselines."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufo_large.config import read_json

FILE_NAME = "metrics.json"
LABELS = {
    "top1": "Top-1 accuracy",
    "map50": "mAP50",
    "miou": "mIoU",
}
PER_CLASS = {"top1": "Top-1 accuracy", "ap50": "AP50", "iou": "IoU"}


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One headline metric in 0..1; `baselines`: (name, value) of what needs no training, best first."""

    key: str
    label: str
    value: float
    baselines: tuple[tuple[str, float], ...] = ()

    @property
    def verdict(self) -> str:
        """Return how the value stands to the best baseline, in words."""
        if not self.baselines or not math.isfinite(self.value):
            return ""
        best = self.baselines[0][1]
        points = round(100 * (self.value - best), 1)
        if points == 0:
            return "as good as it"
        return f"{points:.1f} points above it" if points > 0 else f"{-points:.1f} points below it"


@dataclass(frozen=True, slots=True)
class ClassTable:
    """A metric of every class, worst first."""

    title: str
    rows: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Results:
    """What `metrics.json` says; `other` holds the remaining numbers by their path."""

    protocol: str
    split: str
    score: float | None
    headline: tuple[MetricRow, ...]
    classes: tuple[ClassTable, ...]
    other: tuple[tuple[str, float], ...]


def read_results(workdir: Path) -> Results | None:
    """Return the run's results, or None where it has not been scored. Raises ValueError for a broken file.

    Read are numbers at any depth. `baselines` is either {metric: value}, {metric: {name: value}} or
    {name: {metric: value}}. A metric that is null is left out. Per-class values have
    paths that end in top1/<class>, ap50/<class> or iou/<class>.
    """
    path = Path(workdir) / FILE_NAME
    if not path.exists():
        return None
    return parse_results(read_json(path, "score the run again with eval/run_all.py"))


def parse_results(content: Mapping[str, Any]) -> Results:
    baselines = content.get("baselines") or {}
    numbers = flatten({k: v for k, v in content.items() if k != "baselines"})
    headline, classes, other = [], {}, []
    for path, value in numbers.items():
        per_class = re.search(r"(?:^|/)(top1|ap50|iou)/(.+)$", path)
        if per_class:
            place = path[: per_class.start()].rsplit("/", 1)[-1]
            title = " of ".join(filter(None, [PER_CLASS[per_class[1]], place]))
            classes.setdefault(title, []).append((per_class[2], value))
        elif path in ("top1", "map50", "miou"):
            if content[path] is None:
                continue  # the test set has no task of that kind
            headline.append(MetricRow(path, LABELS[path], value, _baselines_of(path, baselines)))
        elif path != "score":
            other.append((path.removeprefix("details/"), value))
    tables = [ClassTable(title, tuple(sorted(rows, key=_worst_first))) for title, rows in classes.items()]
    protocol = content.get("protocol", "")
    score = numbers.get("score")
    split = str(content.get("split", ""))
    return Results(str(protocol), split, score, tuple(headline), tuple(tables), tuple(other))


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
