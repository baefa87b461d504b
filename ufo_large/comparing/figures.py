"""What the records of a comparison say: means, differences at equal seeds, gains over single tasks.

Every difference is positive where the row is better, also in metrics where less is better. Standard errors
are over the seeds.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ufo_large.comparing.options import CONSTANTS
from ufo_large.comparing.plan import SUM, is_single
from ufo_large.comparing.records import Record
from ufo_large.evaluation.compare import delta_m, figure, tasks_alone_missing
from ufo_large.kinds import KINDS

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error; None from one seed."""

    value: float
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation over the seeds; the latter is None for one."""

    mean: float
    deviation: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of the table, over the seeds that are there.

    `values`: metric -> seed -> figure. `val`: the mean of the metrics on val. `ahead`: seed -> the lead in
    the mean of the metrics over the plain sum of that seed. `over_single`: metric -> seed -> the lead over
    the single-task runs of that seed. `delta_m`: mean relative gain over single-task training; `gains`: each
    seed's.
    """

    label: str
    values: Mapping[str, Mapping[int, float]]
    val: Spread | None
    ahead: Mapping[int, float]
    over_single: Mapping[str, Mapping[int, float]]
    delta_m: Estimate | None
    gains: Mapping[int, float]
    records: Sequence[Record]

    @property
    def is_single(self) -> bool:
        return is_single(self.label)

    @property
    def is_trial(self) -> bool:
        """Whether the row is of constants that were tried on the first seed alone."""
        return self.label.startswith(f"{CONSTANTS} ") and self.seeds == [0]

    @property
    def seeds(self) -> list[int]:
        return sorted(record.seed for record in self.records)


def summarise(records: Sequence[Record], metrics: Sequence[str]) -> list[Row]:
    """Return a row per label: single tasks, the plain sum, then rows with more seeds before others."""
    labels = list(dict.fromkeys(record.label for record in records))
    by_label = {label: [r for r in records if r.label == label] for label in labels}
    labels.sort(key=lambda label: (not is_single(label), label != SUM, -len(by_label[label])))
    ordered = [(label, by_label[label]) for label in labels]
    singles = [record for record in records if is_single(record.label)]
    return [_row(label, own, by_label.get(SUM, []), singles, metrics) for label, own in ordered]


def _row(
    label: str,
    own: Sequence[Record],
    plain: Sequence[Record],
    singles: Sequence[Record],
    metrics: Sequence[str],
) -> Row:
    values = {metric: by_seed(own, metric) for metric in metrics}
    is_joint = not is_single(label)
    found, gains = gain(own, singles) if is_joint else (None, {})
    alone = {metric: _alone(own, singles, metric) for metric in metrics if metric != "score"}
    return Row(
        label=label,
        values={metric: found for metric, found in values.items() if found},
        val=spread([r.scores["val"]["score"] for r in own if "val" in r.scores]),
        ahead=lead(values["score"], by_seed(plain, "score"), "score") if is_joint and label != SUM else {},
        over_single={m: lead(values[m], alone[m], m) for m in alone if is_joint and alone[m]},
        delta_m=found,
        gains=gains,
        records=own,
    )


def _alone(own: Sequence[Record], singles: Sequence[Record], metric: str) -> dict[int, float]:
    """Return what single-task runs reach by seed, for the seeds in which each task of `own` has one."""
    figures: dict[int, list[Figures]] = {}
    for record in singles:
        figures.setdefault(record.seed, []).append(record.figures)
    whole = {
        record.seed
        for record in own
        if not tasks_alone_missing(record.figures, figures.get(record.seed, []), metric)
    }
    return by_seed([record for record in singles if record.seed in whole], metric)


def by_seed(records: Sequence[Record], metric: str) -> dict[int, float]:
    """Return a metric by seed, the mean where several records of a seed have it (tasks of one kind)."""
    found: dict[int, list[float]] = {}
    for record in records:
        if (value := figure(record.figures, metric)) is not None:
            found.setdefault(record.seed, []).append(value)
    return {seed: statistics.fmean(found[seed]) for seed in sorted(found)}


def lead(own: Mapping[int, float], other: Mapping[int, float], metric: str) -> dict[int, float]:
    """Return seed -> how much better, for the seeds that both have."""
    sign = 1 if higher_is_better(metric) else -1
    return {seed: sign * (own[seed] - other[seed]) for seed in own if seed in other}


def higher_is_better(metric: str) -> bool:
    """Say it of a headline, of one task's (`<task>/<headline>`), and of `score`."""
    name = metric.rpartition("/")[2]
    return all(k.headline.higher_is_better for k in KINDS.values() if k.headline.name == name)


def gain(own: Sequence[Record], singles: Sequence[Record]) -> tuple[Estimate | None, dict[int, float]]:
    """Return delta-m with its standard error, and each seed's, for the seeds that all single tasks have.

    Single-task runs count with their mean over these seeds. They are noisy too, so the error is the
    jackknife's (Efron and Stein 1981): delta-m is computed again without each seed in turn, of the row and of
    the single-task runs together.
    """
    labels = {record.label for record in singles}
    complete = {r.seed for r in own if labels and _labels_of(singles, r.seed) == labels}

    def over(seeds: set[int]) -> float | None:
        alone = [r.figures for r in singles if r.seed in seeds]
        found = [delta_m(r.figures, alone) for r in own if r.seed in seeds]
        return None if None in found or not found else statistics.fmean(found)

    value = over(complete)
    if value is None:
        return None, {}
    alone = [r.figures for r in singles if r.seed in complete]
    gains = {r.seed: delta_m(r.figures, alone) for r in own if r.seed in complete}
    return Estimate(value, jackknife_error(over, complete)), gains


def _labels_of(records: Sequence[Record], seed: int) -> set[str]:
    return {record.label for record in records if record.seed == seed}


def jackknife_error(over: Callable[[set[int]], float | None], seeds: set[int]) -> float | None:
    """Return the standard error of `over(seeds)`; that of a mean comes out as deviation / sqrt(n)."""
    without = [over(seeds - {seed}) for seed in seeds]
    if len(seeds) < 2 or None in without:
        return None
    middle, count = statistics.fmean(without), len(without)
    return ((count - 1) / count * sum((w - middle) ** 2 for w in without)) ** 0.5


def spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of independent values with its standard error, deviation / sqrt(n)."""
    found = spread(values)
    if found is None:
        return None
    error = None if found.deviation is None else found.deviation / len(values) ** 0.5
    return Estimate(found.mean, error)
