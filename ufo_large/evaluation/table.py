"""Results as tables for people, and as one JSON line for programs."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from ufo_large.kinds import KINDS


def titles(results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return metric -> title of each kind's headline that some result has, and of the score."""
    results = list(results)
    known = {kind.headline.name: kind.headline.title for kind in KINDS.values()}
    there = {name: title for name, title in known.items() if any(r.get(name) is not None for r in results)}
    return there | {"score": "mean"}


def results_table(result: Mapping[str, Any]) -> Table:
    """Return the metrics in percent, with the trivial baselines and the inputs where `result` has them."""
    inputs = "; ".join(f"{task} {told}" for task, told in result.get("inputs", {}).items())
    table = Table(title=f"protocol {result['protocol']}", caption=inputs or None)
    table.add_column("metric")
    table.add_column("value", justify="right")
    baselines = result.get("baselines", {})
    if baselines:
        table.add_column("trivial baselines")
    shown = titles([result])
    for name, title in shown.items():
        beside = [f"{key.replace('_', ' ')} {_percent(v)}" for key, v in baselines.get(name, {}).items()]
        own = [(t, v[name]) for t, v in result.get("tasks", {}).items() if name in v]
        if len(own) > 1:
            title = f"{title}, mean of {len(own)} tasks"
            for task, value in own:
                table.add_row(f"{shown[name]} of {task}", _percent(value))
        cells = [title, _percent(result[name])] + (["; ".join(beside)] if baselines else [])
        table.add_row(*cells, end_section=name == list(shown)[-2:][0])
    return table


def result_line(result: Mapping[str, Any]) -> str:
    """Return everything but the details (every class's figure) as one line of JSON."""
    return json.dumps({key: value for key, value in result.items() if key != "details"}, allow_nan=False)


def warnings_of(result: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the figures should know, a sentence each."""
    found = []
    for key, value in result.get("details", {}).items():
        if key.endswith("/unpainted") and value:
            found.append(
                f"{key.removesuffix('/unpainted')}: no ring covers {_percent(value)} of the labelled pixels; "
                f"protocol {result['protocol']} leaves them out of the mIoU"
            )
        if key.endswith("/boxes_of_unlisted_category") and value:
            task = key.removesuffix("/boxes_of_unlisted_category")
            found.append(f"{task}: {value} boxes are of categories that the test set does not list; left out")
    return found


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
