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
    `low_P`, `high_P`: their range. `smooth_P`: running mean, None for a curve that is short or without noise.
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


def make_curve(key: str, pairs_N2: np.ndarray) -> Curve:
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
    return Curve(
        key=key,
        steps_P=np.array([steps_N[b[-1]] for b in bins]),
        values_P=values_P,
        low_P=np.where(empty_P, np.nan, low_P),
        high_P=np.where(empty_P, np.nan, high_P),
        smooth_P=running_mean(values_P, len(bins) / 100) if is_noisy(values_P) else None,
        bad_steps=tuple(int(s) for s in steps_N[~finite_N]),
    )


def is_noisy(values_P: np.ndarray) -> bool:
    """Tell whether a curve of at least `SMOOTH_FROM` points zigzags by more than 0.2 % of its range."""
    finite = values_P[np.isfinite(values_P)]
    if len(finite) < SMOOTH_FROM:
        return False
    return bool(np.median(np.abs(np.diff(finite, 2))) > 0.002 * np.ptp(finite))


def running_mean(values_P: np.ndarray, width: float) -> np.ndarray:
    """Mean under a Gaussian of standard deviation `width` points, centred, so that it does not lag.

    Values that are not finite are left out; the result is NaN where the value is.
    """
    reach = int(3 * width) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(width, 1e-9)) ** 2)
    finite_P = np.isfinite(values_P)
    total_P = np.convolve(np.where(finite_P, values_P, 0.0), kernel)[reach:-reach]
    weight_P = np.convolve(finite_P.astype(float), kernel)[reach:-reach]
    return np.where(finite_P, total_P / np.maximum(weight_P, 1e-300), np.nan)


def task_names(keys: Iterable[str]) -> list[str]:
    """Return the tasks of a log in order of appearance: whatever has a loss `<task>/total`."""
    names = [k.split("/")[0] for k in keys if k.endswith("/total") and k.count("/") == 1]
    return list(dict.fromkeys(names))
