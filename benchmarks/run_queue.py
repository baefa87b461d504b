"""Trainings that a comparison needs: each in a folder of its own, a few at a time, finished ones skipped.

An interrupted training goes on from its last checkpoint, so the same command can be given again and again. A
file of records keeps what a comparison needs of its finished runs: it can go on without their folders, on
another day or machine.
"""

import hashlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ufo_large.runs.folder import RunFolder
from ufo_large.tracking.environment import describe_environment
from ufo_large.tracking.panels import headlines

ROOT = Path(__file__).resolve().parents[1]
PROTOCOL = "standard"
SPLITS = ("val", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One training: `label` and `seed` name it, `overrides` go to --set, `data` are its shards."""

    label: str
    seed: int
    recipe: str
    data: str
    overrides: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it goes, below the comparison's folder."""
        return Path(re.sub(r"[^\w.]+", "-", self.label).strip("-")) / f"seed{self.seed}"

    @property
    def plan(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "seed": self.seed, "overrides": list(self.overrides)}


class RunRecords:
    """A file with one JSON line a finished run; without a file nothing is kept.

    Two runs are the same if their plan, ranks and shards are.
    """

    SAME = ("plan", "ranks", "data")

    def __init__(self, file: Path | None):
        self.file, self._lock = file, threading.Lock()
        lines = file.read_text().splitlines() if file and file.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def find(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """Return the row of the run with this key (the values of SAME), None where there is none."""
        return next((row for row in self.rows if all(row[k] == key[k] for k in self.SAME)), None)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row, at once in the file."""
        with self._lock:
            self.rows.append(row)
            if self.file:
                with self.file.open("a") as out:
                    out.write(json.dumps(row) + "\n")


class RunQueue:
    """Train and score runs below `out`, `jobs` at a time, each on `ranks` ranks; keep `records` of them."""

    def __init__(self, out: Path, jobs: int, ranks: int, records: Path | None = None):
        self.out, self.jobs, self.ranks = out, jobs, ranks
        self.records = RunRecords(records)

    def work(self, runs: list[Run]) -> None:
        """Train and score what is not yet there. RuntimeError with the log's end of what failed.

        One failure does not stop the others; all are told at the end.
        """
        todo = [run for run in runs if not self.is_there(run)]
        print(f"{len(runs)} runs: {len(runs) - len(todo)} are there, {len(todo)} to do", flush=True)
        with ThreadPoolExecutor(self.jobs) as pool:
            failures = [f for f in pool.map(self._one, todo) if f is not None]
        for run in runs:
            self._record(run)
        if failures:
            raise RuntimeError("\n".join(failures))

    def is_there(self, run: Run) -> bool:
        """Say whether a run is finished: trained, and scored on every split."""
        return all(self.result(run, split) is not None for split in SPLITS)

    def result(self, run: Run, split: str) -> dict[str, Any] | None:
        """Return a finished run's scores, None where it is not there. ValueError: another plan's folder."""
        if (row := self.records.find(self._key(run))) is not None:
            return row["scores"][split]
        folder = self.out / run.folder
        plan, scores = folder / "plan.json", folder / f"metrics_{split}.json"
        if plan.exists() and (found := json.loads(plan.read_text())) != run.plan:
            raise ValueError(f"{folder} holds another plan ({found}); give another --out")
        return json.loads(scores.read_text()) if plan.exists() and scores.exists() else None

    def traits(self, run: Run) -> dict[str, Any]:
        """Return what its steps say of a finished run: see `traits_of`."""
        if (row := self.records.find(self._key(run))) is not None:
            return row["traits"]
        lines = (self.out / run.folder / "metrics.jsonl").read_text().splitlines()
        return traits_of([json.loads(line) for line in lines])

    def _key(self, run: Run) -> dict[str, Any]:
        shards = hashlib.sha256((Path(run.data) / "dataset.json").read_bytes()).hexdigest()[:16]
        return {"plan": run.plan, "ranks": self.ranks, "data": shards}

    def _record(self, run: Run) -> None:
        """Keep a finished run that is not recorded yet."""
        if not self.is_there(run) or self.records.find(self._key(run)):
            return
        found = describe_environment()
        row = {
            "label": run.label,
            **self._key(run),
            "scores": {split: figures_of(self.result(run, split)) for split in SPLITS},
            "traits": self.traits(run),
            "recorded": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": found["commit"]["hash"],
            "processor": found["hardware"]["processor"],
            "torch": found["versions"]["torch"],
        }
        self.records.add(row)

    def _one(self, run: Run) -> str | None:
        folder, start = self.out / run.folder, time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(run.plan))
        where = ["--workdir", str(folder), "--data", run.data]
        train = [str(ROOT / "launchers" / "train.py"), "--recipe", run.recipe, *where, "--resume", "auto"]
        for assignment in (f"seed={run.seed}", *run.overrides):
            train += ["--set", assignment]
        with (folder / "log.txt").open("w") as log:
            failed = not (folder / "weights").exists() and self._call([*self._launcher(), *train], log)
            failed = failed or any(self._score(run, split, log) for split in SPLITS)
        minutes = (time.perf_counter() - start) / 60
        if failed:
            print(f"FAILED {run.label}, seed {run.seed}", flush=True)
            end = (folder / "log.txt").read_text()[-1500:]
            return f"{run.label}, seed {run.seed} failed; the end of its log:\n{end}"
        self._record(run)
        print(f"{run.label}, seed {run.seed}: {minutes:.1f} minutes", flush=True)
        return None

    def _score(self, run: Run, split: str, log: Any) -> bool:
        """Score a trained run on a split that it is not yet scored on; True if that failed."""
        if self.result(run, split) is not None:
            return False
        folder = self.out / run.folder
        where = ["--workdir", str(folder), "--data", run.data, "--protocol", PROTOCOL, "--split", split]
        failed = self._call([sys.executable, str(ROOT / "eval" / "run_all.py"), *where], log)
        if not failed:
            scores = RunFolder(folder).own_results(split) / "metrics.json"
            scores.rename(folder / f"metrics_{split}.json")
        return failed

    def _launcher(self) -> list[str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        deepspeed = Path(sys.executable).with_name("deepspeed")
        return [str(deepspeed), "--num_gpus", str(self.ranks), "--master_port", str(port)]

    def _call(self, command: list[str], log: Any) -> bool:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PATH": path}, check=False
        )
        return done.returncode != 0


def figures_of(scores: dict[str, Any]) -> dict[str, float]:
    """Return the headline metrics that a run has, and their mean."""
    return {name: scores[name] for name in headlines() if scores.get(name) is not None}


def traits_of(log: list[dict[str, float]]) -> dict[str, Any]:
    """Return each task's typical gradient norm (geometric mean over the steps) and the mean conflict rate.

    `log` has a row a step. A single-task run has no conflict rate: None.
    """
    norms: dict[str, list[float]] = {}
    for row in log:
        for key, value in row.items():
            if key.startswith("balance/") and key.endswith("/grad_norm") and value > 0:
                norms.setdefault(key.split("/")[1], []).append(value)
    conflicts = [row["balance/conflict_rate"] for row in log if "balance/conflict_rate" in row]
    return {
        "grad_norm": {task: statistics.geometric_mean(norms[task]) for task in sorted(norms)},
        "conflict_rate": statistics.mean(conflicts) if conflicts else None,
    }
