"""Put the figures of several runs side by side, with the gain over single-task runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ufo_large.config import Problems, read_json
from ufo_large.evaluation.run import METRICS_FILE
from ufo_large.evaluation.table import TITLES

METRICS = ("top1", "map50", "miou")
SAME = ("protocol", "split", "images")


def read_results(workdirs: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return every run's metrics.json by the run's folder.

    Raises ValueError that lists the runs that are not scored, or that were scored by another protocol, on
    another split or on other numbers of images than the first: their figures do not compare.
    """
    problems, results = Problems("runs to compare"), {}
    for workdir in workdirs:
        file = workdir / METRICS_FILE
        try:
            results[str(workdir)] = read_json(file, "score the run again")
        except FileNotFoundError:
            problems.add(f"{file}: missing; score the run with eval/run_all.py --workdir {workdir}")
        except ValueError as error:
            problems.add(str(error))
    first = next(iter(results.values()), {})
    for name, result in results.items():
        for key in SAME:
            if not _agree(result.get(key), first.get(key)):
                problems.add(
                    f"{name}: {key} is {result.get(key)}, of the first run {first.get(key)}; score them alike"
                )
    problems.raise_if_any()
    return results


def delta_m(result: Mapping[str, Any], singles: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean over the metrics of (M - M_single) / M_single, the gain over single-task runs.

    As in Maninis et al. 2019 (arXiv:1904.08918); every metric here is better when higher. None where a metric
    of the run has no single-task run, or one that scored 0. Several single-task runs of a metric count with
    their mean.
    """
    gains = []
    for metric in METRICS:
        if result.get(metric) is None:
            continue
        alone = [single[metric] for single in singles if single.get(metric) is not None]
        if not alone or not sum(alone):
            return None
        base = sum(alone) / len(alone)
        gains.append((result[metric] - base) / base)
    return sum(gains) / len(gains) if gains else None


def comparison_table(results: Mapping[str, Mapping[str, Any]], gains: Mapping[str, float | None]) -> Table:
    """Return one row a run: the metrics and their mean in percent, and the gain where it is known."""
    first = next(iter(results.values()))
    table = Table(title=f"protocol {first['protocol']}, split {first.get('split', 'unknown')}")
    table.add_column("run")
    for title in (*TITLES.values(), *(["delta-m"] if gains else [])):
        table.add_column(title, justify="right")
    for name, result in results.items():
        cells = [_percent(result.get(key)) for key in TITLES]
        if gains:
            cells.append("" if gains.get(name) is None else f"{100 * gains[name]:+.2f} %")
        table.add_row(name, *cells)
    return table


def _agree(value: Any, first: Any) -> bool:
    """Compare; of images by task only the tasks that both runs have count."""
    if isinstance(value, Mapping) and isinstance(first, Mapping):
        return all(value[task] == first[task] for task in value.keys() & first.keys())
    return value == first


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
