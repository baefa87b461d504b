"""What was planned for a run on GPUs, `plan.json`, beside what its log measured.

Training writes the plan when it starts or resumes (train.planned). Both are of the first rank, and the
measured figures of this start alone: the most memory, and means over the later half of its logged steps.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufo_large.config import Unreadable, read_json, write_json
from ufo_large.tracking.results import flatten

FILE_NAME = "plan.json"
REMEDY = "remove it; a run that resumes on GPUs writes it anew"
LIMIT = 1 << 20
MAX_PARTS = 100
MAX_WORD = 80
GIB = 2**30
COMPILED = (
    "Blocks are planned as not compiled: compiled ones keep as much for the backward pass and should take "
    "less time, by how much has not been measured."
)


@dataclass(frozen=True, slots=True)
class Row:
    """A figure in `unit`, `GiB`, `s` or `%` (then shares, 0 to 1); None where it is not planned or measured.

    `is_sum`: it is what the rows above come to.
    """

    name: str
    unit: str
    planned: float | None
    measured: float | None = None
    is_sum: bool = False

    def text(self, value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return "–"
        if self.unit == "%":
            return f"{100 * value:.1f}\u00a0%"
        return f"{value:.2f}" if self.unit == "GiB" else f"{value:.3f}"

    @property
    def error(self) -> str:
        """How much more was planned than measured, as `+1.2 %` of the measured."""
        if self.planned is None or not self.measured or not math.isfinite(self.measured):
            return ""
        return f"{100 * (self.planned / self.measured - 1):+.1f}\u00a0%"


@dataclass(frozen=True, slots=True)
class PlanCheck:
    """`told`: what was planned on which GPUs. `tables`: (title, unit, rows). `notes`: how to read them."""

    told: str
    tables: tuple[tuple[str, str, tuple[Row, ...]], ...]
    notes: tuple[str, ...]


def save_plan(workdir: Path, plan: Mapping[str, Any] | None, finished: int) -> None:
    """Write the plan of a run that goes on after `finished` steps; without one remove an earlier start's."""
    path = Path(workdir) / FILE_NAME
    if plan is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, {"from_step": finished, **plan})


def read_plan_check(workdir: Path, entries: Sequence[Mapping[str, float]]) -> PlanCheck | None:
    """Return plan and log side by side; None where nothing was planned. Raises Unreadable for a damaged plan.

    `entries`: the run's log.
    """
    path = Path(workdir) / FILE_NAME
    if not path.exists():
        return None
    plan = read_json(path, REMEDY, limit=LIMIT)
    if not isinstance(plan, dict) or not isinstance(plan.get("memory"), dict):
        raise Unreadable(path, "not the plan of a run", REMEDY)
    numbers = flatten(plan)
    log = _Log(entries, numbers.get("from_step", 0))
    tables = [("Memory of a rank", "GiB", _memory(numbers, log))]
    notes = []
    if "step_seconds" in numbers and numbers["step_seconds"] > 0:
        tables += [("A step", "s", _time(numbers, log)), ("Shares of a step", "%", _shares(numbers, log))]
        notes.append("Waiting for data is not planned; the measured time of a task has it.")
    else:
        notes.append("The rates of this GPU are not known, so no time was planned.")
    if plan.get("compiles") is True:
        notes.append(COMPILED)
    gpu, checkpointing = (str(plan.get(key))[:MAX_WORD] for key in ("gpu", "checkpointing"))
    told = f"{numbers.get('gpus', 1):.0f} x {gpu}, checkpointing {checkpointing}"
    return PlanCheck(told, tuple(tables), tuple(notes))


class _Log:
    """The measured figures of a start: entries behind `from_step`."""

    def __init__(self, entries: Sequence[Mapping[str, float]], from_step: float):
        self.entries = [entry for entry in entries if entry["step"] > from_step]
        timed = [entry for entry in self.entries if _finite(entry, "train/step_seconds")]
        self.late = timed[len(timed) // 2 :]

    def most(self, key: str) -> float | None:
        return max((entry[key] for entry in self.entries if _finite(entry, key)), default=None)

    def mean(self, key: str) -> float | None:
        """Of the later half; a task that rests in a step counts with 0 there."""
        own = [entry[key] for entry in self.late if _finite(entry, key)]
        return sum(own) / len(self.late) if own else None

    def mfu(self, seconds: float) -> float | None:
        """Return the share of the peak if a step had taken so many seconds, with the operations it has."""
        own = [e["train/mfu"] * e["train/step_seconds"] for e in self.late if _finite(e, "train/mfu")]
        return sum(own) / len(own) / seconds if own else None


def _finite(entry: Mapping[str, float], key: str) -> bool:
    return math.isfinite(entry.get(key, math.nan))


def _under(numbers: Mapping[str, float], path: str) -> dict[str, float]:
    """Return the numbers below a path, by what follows it; no more than a page shows."""
    found = {key.removeprefix(path): value for key, value in numbers.items() if key.startswith(path)}
    return dict(list(found.items())[:MAX_PARTS])


def _memory(numbers: Mapping[str, float], log: _Log) -> tuple[Row, ...]:
    def gib(key: str) -> float | None:
        return numbers[f"memory/{key}"] / GIB if f"memory/{key}" in numbers else None

    return (
        *(Row(name, "GiB", size / GIB) for name, size in _under(numbers, "memory/states/").items()),
        *((Row("gathered weights of one task", "GiB", gib("gathered")),) if gib("gathered") else ()),
        Row("activations, heads, losses, gradients", "GiB", gib("passing")),
        Row("live at most", "GiB", gib("live"), log.most("train/peak_memory_gib"), is_sum=True),
        Row("reserved by torch", "GiB", gib("reserved"), log.most("train/peak_reserved_gib"), is_sum=True),
        Row("outside of torch, assumed", "GiB", gib("outside")),
    )


def _tasks(numbers: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the planned figures of each task in a step."""
    tasks: dict[str, dict[str, float]] = {}
    for key, value in numbers.items():
        match key.split("/"):
            case ["time", "tasks", task, figure]:
                tasks.setdefault(task, {})[figure] = value
    return dict(list(tasks.items())[:MAX_PARTS])


def _time(numbers: Mapping[str, float], log: _Log) -> tuple[Row, ...]:
    tasks = {task: log.mean(f"train/task_seconds/{task}") for task in _tasks(numbers)}
    step = log.mean("train/step_seconds")
    known = [seconds for seconds in tasks.values() if seconds is not None]
    rest = None if step is None or len(known) < len(tasks) else max(0.0, step - sum(known))
    rows = [Row(t, "s", own.get("seconds"), tasks[t]) for t, own in _tasks(numbers).items()]
    rows.append(Row("optimizer, balancing, average", "s", numbers.get("time/optimizer"), rest))
    return (*rows, Row("a step", "s", numbers["step_seconds"], step, is_sum=True))


def _shares(numbers: Mapping[str, float], log: _Log) -> tuple[Row, ...]:
    step = numbers["step_seconds"]
    spent = dict.fromkeys(("computing", "host", "exposed"), 0.0)
    for own in _tasks(numbers).values():
        gpu, host = own.get("computing", 0.0), own.get("host", 0.0)
        count = own.get("micro_batches", 0.0) / step
        spent["computing"] += count * gpu
        spent["host"] += count * max(host - gpu, 0.0)
        spent["exposed"] += count * own.get("exposed", 0.0)
    return (
        Row("GPU, with ZeRO-3's hooks and copies", "%", spent["computing"]),
        Row("host, where it takes longer", "%", spent["host"], log.mean("train/host_wait_share")),
        Row("exposed communication", "%", spent["exposed"], log.mean("train/network_wait_share")),
        Row("optimizer, balancing, average", "%", numbers.get("time/optimizer", 0.0) / step),
        Row("waiting for data", "%", None, log.mean("train/data_wait_share")),
        Row("MFU", "%", log.mfu(step), log.mean("train/mfu"), is_sum=True),
    )
