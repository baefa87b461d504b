"""From the log's lines to curves of a size a page can draw: thinned, smoothed, bad values counted.

Legend: N logged points, P drawn points.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MAX_POINTS = 500
SMOOTH_FROM = 60


@dataclass(frozen=True, slots=True)
class Curve:
    """One key of the log, thinned to at most `MAX_POINTS` bins.

    `steps_P`: the last step of each bin; `values_P`: mean of its finite values, NaN where there is none;
    `low_P`, `high_P`: their range. `smooth_P`: running mean, or None for a short curve.
    `bad_steps`: logged steps whose value was not finite.
    """

    key: str
    steps_P: np.ndarray
    values_P: np.ndarray
    low_P: np.ndarray
    high_P: np.ndarray
    smooth_P: np.ndarray | None
    bad_steps: tuple[int, ...]

    @property
    def last(self) -> float:
        """The last finite value, NaN if there is none."""
        finite = self.values_P[np.isfinite(self.values_P)]
        return float(finite[-1]) if len(finite) else math.nan


def curves_of(entries: Sequence[Mapping[str, float]]) -> dict[str, Curve]:
    """Return a curve for every key of the log but `step`, in order of first appearance."""
    points: dict[str, list[tuple[float, float]]] = {}
    for entry in entries:
        for key, value in entry.items():
            if key != "step":
                points.setdefault(key, []).append((entry["step"], value))
    return {key: make_curve(key, np.array(pairs, dtype=np.float64)) for key, pairs in points.items()}


def make_curve(key: str, pairs_N2: np.ndarray, smooth: bool = True) -> Curve:
    """Thin (step, value) pairs into equal bins; the curve keeps the range of what a bin averages away."""
    steps_N, values_N = pairs_N2[:, 0], pairs_N2[:, 1]
    finite_N = np.isfinite(values_N)
    bins = np.array_split(np.arange(len(steps_N)), min(MAX_POINTS, len(steps_N)))
    starts = np.array([b[0] for b in bins])
    counts_P = np.add.reduceat(finite_N.astype(np.float64), starts)
    sums_P = np.add.reduceat(np.where(finite_N, values_N, 0.0), starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        values_P = sums_P / counts_P
    empty_P = counts_P == 0
    low_P = np.minimum.reduceat(np.where(finite_N, values_N, np.inf), starts)
    high_P = np.maximum.reduceat(np.where(finite_N, values_N, -np.inf), starts)
    long_enough = smooth and len(bins) >= SMOOTH_FROM
    return Curve(
        key=key,
        steps_P=np.array([steps_N[b[-1]] for b in bins]),
        values_P=values_P,
        low_P=np.where(empty_P, np.nan, low_P),
        high_P=np.where(empty_P, np.nan, high_P),
        smooth_P=running_mean(values_P, len(bins) / 30) if long_enough else None,
        bad_steps=tuple(int(s) for s in steps_N[~finite_N]),
    )


def running_mean(values_P: np.ndarray, span: float) -> np.ndarray:
    """Exponential mean over about `span` points, unbiased at the start; NaN where the value is NaN."""
    keep = 1.0 - 1.0 / max(span, 1.0)
    total = weight = 0.0
    smooth_P = np.full(len(values_P), np.nan)
    for i, value in enumerate(values_P):
        if math.isfinite(value):
            total, weight = keep * total + value, keep * weight + 1.0
            smooth_P[i] = total / weight
    return smooth_P


def task_names(keys: Iterable[str]) -> list[str]:
    """Return the tasks of a log in order of appearance: whatever has a loss `<task>/total`."""
    names = [k.split("/")[0] for k in keys if k.endswith("/total") and k.count("/") == 1]
    return list(dict.fromkeys(names))
