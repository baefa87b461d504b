"""Put the figures of several runs side by side, with the gain over single-task runs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from ufo_large.config import Problems, read_json
from ufo_large.evaluation.run import METRICS_FILE
from ufo_large.evaluation.table import titles
from ufo_large.kinds import KINDS

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
        except NotADirectoryError:
            problems.add(f"{workdir}: not a run's folder; give the folder that holds {METRICS_FILE}")
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

    As in Maninis et al. 2019 (arXiv:1904.08918), the sign turned where less is better. None where a task of
    the run has no single-task run, or a metric's scored 0. Several single-task runs of a task count with
    their mean.
    """
    gains = []
    for headline in (kind.headline for kind in KINDS.values()):
        metric = headline.name
        if result.get(metric) is None:
            continue
        alone = _alone(result, singles, metric)
        base = fmean(map(fmean, alone)) if all(alone) else 0
        if not base:
            return None
        sign = 1 if headline.higher_is_better else -1
        gains.append(sign * (result[metric] - base) / base)
    return sum(gains) / len(gains) if gains else None


def _alone(result: Mapping[str, Any], singles: Sequence[Mapping[str, Any]], metric: str) -> list[list[float]]:
    """Return the figures of the single-task runs of each task that a run has; of all where it names none."""
    own = _tasks_with(result, metric)
    if not own:
        return [[single[metric] for single in singles if single.get(metric) is not None]]
    return [
        [figure(single, f"{task}/{metric}") for single in singles if task in _tasks_with(single, metric)]
        for task in own
    ]


def tasks_alone_missing(
    result: Mapping[str, Any], singles: Iterable[Mapping[str, Any]], metric: str
) -> set[str]:
    """Return the tasks of a run, where it has several with this metric, that no single-task run has."""
    own = set(_tasks_with(result, metric))
    return own.difference(*(_tasks_with(single, metric) for single in singles)) if len(own) > 1 else set()


def comparison_table(results: Mapping[str, Mapping[str, Any]], gains: Mapping[str, float | None]) -> Table:
    """Return one row a run: the metrics and their mean in percent, and the gain where it is known."""
    first = next(iter(results.values()))
    table = Table(title=f"protocol {first['protocol']}, split {first.get('split', 'unknown')}")
    table.add_column("run")
    shown = columns(results.values())
    for title in (*shown.values(), *(["delta-m"] if gains else [])):
        table.add_column(title, justify="right")
    for name, result in results.items():
        cells = [_percent(figure(result, key)) for key in shown]
        if gains:
            cells.append("" if gains.get(name) is None else f"{100 * gains[name]:+.2f} %")
        table.add_row(name, *cells)
    return table


def columns(results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return key -> title of what stands side by side; `figure` looks a key up."""
    results = list(results)
    return titles(results) | _titles_of_tasks(results)


def figure(result: Mapping[str, Any], key: str) -> float | None:
    """Return a run's figure: a metric, or one task's as `<task>/<metric>`; None where it has none."""
    task, slash, metric = key.partition("/")
    return result.get("tasks", {}).get(task, {}).get(metric) if slash else result.get(key)


def _titles_of_tasks(results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return `<task>/<metric>` -> title of each task where a run has several of one kind."""
    found: dict[str, str] = {}
    for kind in KINDS.values():
        metric = kind.headline.name
        for result in results:
            own = _tasks_with(result, metric)
            found |= {f"{task}/{metric}": f"{kind.headline.title} {task}" for task in own if len(own) > 1}
    return found


def _tasks_with(result: Mapping[str, Any], metric: str) -> list[str]:
    return [task for task, figures in result.get("tasks", {}).items() if metric in figures]


def _agree(value: Any, first: Any) -> bool:
    """Compare; of images by task only the tasks that both runs have count."""
    if isinstance(value, Mapping) and isinstance(first, Mapping):
        return all(value[task] == first[task] for task in value.keys() & first.keys())
    return value == first


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
