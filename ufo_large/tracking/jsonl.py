"""The run's local log: `metrics.jsonl`, one JSON object a line, safe against a crash and a resume."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ufo_large.config import parse_json
from ufo_large.config.whole import write_text_whole

FILE_NAME = "metrics.jsonl"
TAIL_BYTES = 1 << 18


class MetricsLog:
    """Append the values of a step as one line `{"step": 7, "cls/total": 1.5}`.

    A line is written with one call and flushed, so a crash costs at most the line being written; that torn
    line is cut off when the file is opened again. A value that is not finite is written as null (JSON has
    no NaN) and read back as NaN. `step` counts finished optimizer steps.
    """

    def __init__(self, path: Path, resume_step: int | None = None):
        """Start a new file, or with `resume_step` keep the lines up to that step and go on after them."""
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume_step is None:
            self.path.unlink(missing_ok=True)
        else:
            drop_lines_after(self.path, resume_step)
        self._file = self.path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        line = {"step": step} | {k: _finite_or_none(v) for k, v in values.items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def finish(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return one dict a step, in order of steps; lines of the same step are merged, the later one wins.

    A torn last line is ignored; a torn line elsewhere raises ValueError with its number. A missing file
    gives an empty list.
    """
    by_step: dict[int, dict[str, float]] = {}
    for entry in _parse_lines(Path(path)):
        values = {k: math.nan if v is None else v for k, v in entry.items()}
        by_step.setdefault(entry["step"], {}).update(values)
    return [by_step[step] for step in sorted(by_step)]


def last_step(path: Path) -> int:
    """Return the step of the last whole line, 0 where there is none; only the end of the file is read."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        whole = file.read().split(b"\n")[:-1]  # what follows the last newline is torn, or nothing
    for line in reversed(whole):
        try:
            return int(parse_json(line, path, "delete that line")["step"])
        except (ValueError, KeyError, TypeError):
            continue  # the tail may begin inside of a line; the run itself tells of a torn one
    return 0


def training_seconds(entries: Sequence[Mapping[str, float]]) -> float | None:
    """Return the seconds of all steps, None where none was timed.

    A logged step stands for those since the logged one before it.
    """
    timed = [(e["step"], e["train/step_seconds"]) for e in entries if "train/step_seconds" in e]
    gaps = [now - then for then, now in pairwise([0, *(step for step, _ in timed)])]
    known = [gap * s for gap, (_, s) in zip(gaps, timed, strict=True) if math.isfinite(s)]
    return sum(known) if timed else None


def drop_lines_after(path: Path, step: int) -> None:
    """Rewrite the file without the lines beyond `step` and without a torn end; a missing file stays so.

    Without this the steps between the last checkpoint and a crash would be drawn twice after a resume.
    """
    path = Path(path)
    if not path.exists():
        return
    kept = [json.dumps(entry) + "\n" for entry in _parse_lines(path) if entry["step"] <= step]
    write_text_whole(path, "".join(kept))


def _parse_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line, path, "delete that line")
            int(entry["step"])
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                continue  # no newline after it: the write was cut
            raise ValueError(
                f"{path}, line {number}: not a metrics line ({line[:60]!r}); delete that line to go on"
            ) from None
        entries.append(entry)
    return entries


def _finite_or_none(value: float) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None
