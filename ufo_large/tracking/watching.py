"""Watch a run while it trains: its report, made again when its files have changed, and how far it is."""

import contextlib
import hashlib
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ufo_large.config import read_json
from ufo_large.tracking.console import WINDOW, format_duration, speed_text
from ufo_large.tracking.jsonl import FILE_NAME as METRICS_LOG
from ufo_large.tracking.jsonl import read_metrics
from ufo_large.tracking.report import CONFIG_FILE, OF_A_RUN, render

SIGNS = (*OF_A_RUN, "checkpoints", "weights")
MAX_BYTES = 64 << 20
PAUSE = 10
"""Times as long as it took to make a report until the next: the run needs the processor more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What a page shows over the report: labelled values, and what is wrong, "" where nothing is.

    `version` names the state of the files from which the report was made, "" where there is none yet.
    """

    name: str
    version: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    problem: str = ""


class WatchedRun:
    """A run's folder as it is now; only read, by any number of threads. The folder may come later."""

    def __init__(self, workdir: Path):
        self.workdir = Path(workdir)
        self._status = Status(name=self.workdir.resolve().name)
        self._page = b""
        self._seen: object = None
        self._trouble = ""
        self._not_before = -math.inf
        self._lock = threading.Lock()

    def status(self) -> Status:
        """Return how far the run is; makes the report anew where it is due."""
        with self._lock:
            if self.workdir.is_dir():
                self._look()
                problem = self._trouble or self._status.problem
            else:
                problem = f"{self.workdir}: no such folder yet"
            return replace(self._status, facts=(*self._status.facts, *self._last_sign()), problem=problem)

    def report(self) -> bytes:
        """Return the page that the last status speaks of."""
        if not self._page:
            self.status()
        return self._page

    def _look(self) -> None:
        """Read the files where they have changed; one that is half written is told, and read next time."""
        seen = [(stat.st_mtime_ns, stat.st_size) for stat in self._stats(OF_A_RUN)]
        begun = time.monotonic()
        if (seen == self._seen and not self._trouble) or begun < self._not_before:
            return
        try:
            self._read(hashlib.sha256(repr(seen).encode()).hexdigest()[:16])
            self._seen, self._trouble = seen, ""
        except (ValueError, OSError) as error:
            self._trouble = f"the report stays as it was: {error}"
        self._not_before = time.monotonic() + PAUSE * (time.monotonic() - begun)

    def _read(self, version: str) -> None:
        page = render(self.workdir, self.workdir).encode()
        if len(page) > MAX_BYTES:
            raise ValueError(f"the report has {len(page) >> 20} MiB, and a page may have {MAX_BYTES >> 20}")
        entries = read_metrics(self.workdir / METRICS_LOG)
        facts = tuple(progress(entries, total_steps(self.workdir / CONFIG_FILE)))
        problem = "" if entries else "no training step has been written yet"
        self._page = page
        self._status = replace(self._status, version=version, facts=facts, problem=problem)

    def _stats(self, names: Sequence[str]) -> list[os.stat_result]:
        found = []
        for name in names:
            with contextlib.suppress(OSError):
                found.append((self.workdir / name).stat())
        return found

    def _last_sign(self) -> list[tuple[str, str]]:
        times = [stat.st_mtime for stat in self._stats(SIGNS)]
        silent = [format_duration(max(0.0, time.time() - max(times)))] if times else []
        return [("since the last sign of life", text) for text in silent]


def progress(entries: Sequence[Mapping[str, float]], total: int | None) -> list[tuple[str, str]]:
    """Return (label, value) of the last step, the speed of the last ones and the time left at that speed."""
    if not entries:
        return []
    step = int(entries[-1]["step"])
    facts = [("steps", f"{step} of {total}" if total else str(step))]
    timed = [e["train/step_seconds"] for e in entries[-WINDOW:] if "train/step_seconds" in e]
    finite = [seconds for seconds in timed if math.isfinite(seconds) and seconds > 0]
    if finite:
        seconds = sum(finite) / len(finite)
        facts.append(("speed", f"{seconds:.2f} s/step" if seconds >= 1 else f"{1 / seconds:.2f} steps/s"))
        if told := speed_text(entries[-1]):
            facts.append(("rate", told))
        if total and total > step:
            facts.append(("left, without validation", format_duration((total - step) * seconds)))
    if total and step >= total:
        facts.append(("done", "all steps"))
    return facts


def total_steps(config_file: Path) -> int | None:
    """Return the steps that a run's config asks for, None where it says none."""
    if not config_file.exists():
        return None
    content = read_json(config_file, "put a copy of the run's own there")
    config = content.get("config") if isinstance(content, dict) else None
    steps = config.get("steps") if isinstance(config, dict) else None
    return steps if isinstance(steps, int) and steps > 0 else None
