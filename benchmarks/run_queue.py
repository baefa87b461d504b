"""Trainings that a comparison needs: each in a folder of its own, a few at a time, finished ones skipped.

An interrupted training goes on from its last checkpoint, so the same command can be given again and again.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROTOCOL = "standard"


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


class RunQueue:
    """Train and score runs below `out`, `jobs` at a time, each on `ranks` ranks."""

    def __init__(self, out: Path, jobs: int, ranks: int):
        self.out, self.jobs, self.ranks = out, jobs, ranks

    def work(self, runs: list[Run], split: str) -> None:
        """Train and score on `split` what is not yet there. RuntimeError with the log's end of what failed.

        One failure does not stop the others; all are told at the end.
        """
        todo = [run for run in runs if self.result(run, split) is None]
        print(f"{len(runs)} runs scored on {split}: {len(runs) - len(todo)} are there, {len(todo)} to do")
        with ThreadPoolExecutor(self.jobs) as pool:
            failures = [f for f in pool.map(lambda run: self._one(run, split), todo) if f is not None]
        if failures:
            raise RuntimeError("\n".join(failures))

    def result(self, run: Run, split: str) -> dict[str, Any] | None:
        """Return a finished run's scores, None where it is not there. ValueError: another plan's folder."""
        folder = self.out / run.folder
        plan, scores = folder / "plan.json", folder / f"metrics_{split}.json"
        if plan.exists() and (found := json.loads(plan.read_text())) != run.plan:
            raise ValueError(f"{folder} holds another plan ({found}); give another --out")
        return json.loads(scores.read_text()) if plan.exists() and scores.exists() else None

    def log(self, run: Run) -> list[dict[str, float]]:
        """Return what the run logged, a row a step."""
        lines = (self.out / run.folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def _one(self, run: Run, split: str) -> str | None:
        folder, start = self.out / run.folder, time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(run.plan))
        where = ["--workdir", str(folder), "--data", run.data]
        train = [str(ROOT / "launchers" / "train.py"), "--recipe", run.recipe, *where, "--resume", "auto"]
        for assignment in (f"seed={run.seed}", *run.overrides):
            train += ["--set", assignment]
        score = [sys.executable, str(ROOT / "eval" / "run_all.py"), *where]
        with (folder / f"log_{split}.txt").open("w") as log:
            failed = not (folder / "weights").exists() and self._call([*self._launcher(), *train], log)
            failed = failed or self._call([*score, "--protocol", PROTOCOL, "--split", split], log)
        minutes = (time.perf_counter() - start) / 60
        if failed:
            print(f"FAILED {run.label}, seed {run.seed}", flush=True)
            end = (folder / f"log_{split}.txt").read_text()[-1500:]
            return f"{run.label}, seed {run.seed} failed; the end of its log:\n{end}"
        (folder / "metrics.json").rename(folder / f"metrics_{split}.json")
        print(f"{run.label}, seed {run.seed}: {minutes:.1f} minutes", flush=True)
        return None

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
