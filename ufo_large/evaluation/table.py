"""Results as tables for people, and as one JSON line for programs."""

import json
from collections.abc import Mapping
from typing import Any

from rich.table import Table

TITLES = {"top1": "Top-1", "map50": "mAP50", "miou": "mIoU", "score": "mean"}


def results_table(result: Mapping[str, Any]) -> Table:
    """Return the metrics in percent, with the trivial baselines beside them where `result` has them."""
    table = Table(title=f"protocol {result['protocol']}")
    table.add_column("metric")
    table.add_column("value", justify="right")
    baselines = result.get("baselines", {})
    if baselines:
        table.add_column("trivial baselines")
    for name, title in TITLES.items():
        if result[name] is not None:
            beside = [f"{key.replace('_', ' ')} {_percent(v)}" for key, v in baselines.get(name, {}).items()]
            cells = [title, _percent(result[name])] + (["; ".join(beside)] if baselines else [])
            table.add_row(*cells, end_section=name == "miou")
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
