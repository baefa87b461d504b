"""Which experts the tokens of each task took in each routed part of the trunk, from what routers log.

A router that chooses says `routing/<task>/path/<part>/<expert>`: the share of the task's tokens in a step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ufo_large.tracking.panels import PATH

LAST = 0.1
MAX_PARTS, MAX_TASKS, MAX_EXPERTS = 100, 30, 64


@dataclass(frozen=True, slots=True)
class Paths:
    """`rows`: (part of the trunk, per task of `tasks` its (expert, share)); empty where it never ran."""

    tasks: tuple[str, ...]
    experts: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[tuple[str, float], ...], ...]], ...]


def read_paths(entries: Sequence[Mapping[str, float]]) -> Paths | None:
    """Return the mean shares of the last tenth of the steps; None where no router tells any."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for entry in entries:
        for key, value in entry.items():
            parts = key.split("/")
            if len(parts) == 5 and parts[0] == "routing" and f"{parts[2]}/" == PATH:
                values.setdefault((parts[3], parts[1], parts[4]), []).append(value)
    if not values:
        return None
    parts, tasks, experts = (tuple(dict.fromkeys(key[i] for key in values)) for i in range(3))
    tasks, experts = tasks[:MAX_TASKS], experts[:MAX_EXPERTS]
    shares = {key: _late_mean(own) for key, own in values.items()}
    rows = tuple(
        (part, tuple(_of_task(shares, part, task, experts) for task in tasks)) for part in parts[:MAX_PARTS]
    )
    return Paths(tasks, experts, rows)


def _of_task(
    shares: Mapping[tuple[str, str, str], float], part: str, task: str, experts: Sequence[str]
) -> tuple[tuple[str, float], ...]:
    known = ((expert, shares.get((part, task, expert), 0.0)) for expert in experts)
    return tuple((expert, share) for expert, share in known if share > 0)


def _late_mean(values: Sequence[float]) -> float:
    late = [v for v in values[-max(1, round(LAST * len(values))) :] if math.isfinite(v)]
    return min(1.0, max(0.0, sum(late) / len(late))) if late else 0.0
