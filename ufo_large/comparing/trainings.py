"""Train and score runs, a few at a time, each in a folder of its own; what is finished is skipped.

An interrupted training goes on from its last checkpoint, so the same command can be given again and again.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ufo_large.comparing.places import Place
from ufo_large.comparing.plan import Run, data_hash
from ufo_large.config import loaded_plugins, read_json, write_json
from ufo_large.evaluation.run import METRICS_FILE
from ufo_large.finetuning.children import environment_of, sharded_start
from ufo_large.finetuning.machine import Machine
from ufo_large.runs.folder import RunFolder

PROTOCOL = "standard"
LOG, PLAN = "log.txt", "plan.json"
LOG_END, PAUSE_S = 1500, 0.2
STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workshop:
    """What every training shares. `root` holds launchers/ and eval/; runs go below `out`.

    `splits` are scored, in order. `sharded`: under DeepSpeed's launcher.
    """

    root: Path
    out: Path
    machine: Machine
    ranks: int
    sharded: bool
    splits: tuple[str, ...]

    def folder(self, run: Run) -> RunFolder:
        return RunFolder(self.out / run.folder)

    def commands(self, run: Run, place: Place) -> Iterator[list[str]]:
        """Yield what is left to do of a run, one command after the other."""
        folder = self.folder(run)
        where = ["--workdir", str(folder.root), "--data", str(run.data)]
        if not folder.weights.exists():
            sets = [word for setting in (f"seed={run.seed}", *run.overrides) for word in ("--set", setting)]
            yield self.command(
                place, "launchers/train.py", "--recipe", run.recipe, *where, "--resume", "auto", *sets
            )
        for split in self.splits:
            if not (folder.own_results(split) / METRICS_FILE).exists():
                yield self.command(place, "eval/run_all.py", *where, "--split", split, "--protocol", PROTOCOL)

    def require_same_plan(self, run: Run) -> None:
        """Raise ValueError where the run's folder was begun by another plan; else note the plan there."""
        file = self.folder(run).root / PLAN
        plan = {"label": run.label, **run.plan, "ranks": self.ranks, "data": data_hash(run.data)}
        if file.exists() and (found := read_json(file, f"remove {file.parent}")) != plan:
            raise ValueError(
                f"{file.parent} holds another plan ({found}, not {plan}); give another --out, or remove it"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, plan)

    def start(self, command: Sequence[str], log: IO[str], place: Place) -> subprocess.Popen:
        """Start a command on its own cores, in a session of its own: signals come from here alone."""
        mine = os.sched_getaffinity(0)
        if place.cores:
            os.sched_setaffinity(0, place.cores)  # children inherit it
        try:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(place),
                start_new_session=True,
            )
        finally:
            os.sched_setaffinity(0, mine)

    def command(self, place: Place, script: str, *words: str) -> list[str]:
        start = sharded_start(self.root, self.ranks, place.gpus) if self.sharded else [sys.executable]
        plugins = [word for name in loaded_plugins() for word in ("--plugin", name)]
        return [*start, str(self.root / script), *words, *plugins]

    def _environment(self, place: Place) -> dict[str, str]:
        alone = {} if self.sharded or not place.gpus else {"CUDA_VISIBLE_DEVICES": place.gpus[0]}
        return {**environment_of(self.machine), **alone}


@dataclass(slots=True)
class Job:
    """A run that is being worked on. `is_fresh`: nothing of it was there before."""

    run: Run
    place: Place
    commands: Iterator[list[str]]
    log: IO[str]
    started: float
    is_fresh: bool
    child: subprocess.Popen | None = None

    def next_command(self, workshop: Workshop) -> bool:
        """Start the next command; False where there is none left."""
        command = next(self.commands, None)
        if command is not None:
            self.log.write(f"$ {shlex.join(command)}\n")
            self.log.flush()
            self.child = workshop.start(command, self.log, self.place)
        return command is not None


class Interrupted(Exception):
    """SIGTERM or SIGINT came; the trainings have saved and ended."""


def work(
    workshop: Workshop,
    places: Sequence[Place],
    runs: Sequence[Run],
    finished: Callable[[Run, float | None], None],
) -> list[str]:
    """Train and score `runs`, as many at a time as there are places.

    Calls `finished(run, seconds)` for each; seconds are None where part of it had been done before. One
    failure does not stop the others; returns what failed, with the end of its log. Where SIGTERM or SIGINT
    comes, trainings are told to save, and Interrupted is raised when they have.
    """
    for run in runs:
        workshop.require_same_plan(run)
    waiting, free, jobs = list(runs), list(places), []
    failures: list[str] = []
    with _stop_signals() as told, contextlib.ExitStack() as at_the_end:
        at_the_end.callback(_end, jobs)
        while (waiting or jobs) and not told:
            while waiting and free:
                jobs.append(_begun(workshop, waiting.pop(0), free.pop(0)))
            for job in [j for j in jobs if _is_over(workshop, j)]:
                jobs.remove(job)
                free.append(job.place)
                job.log.close()
                if job.child is not None and job.child.returncode:
                    failures.append(_failure(workshop, job))
                else:
                    finished(job.run, time.monotonic() - job.started if job.is_fresh else None)
            if not free or not waiting:
                time.sleep(PAUSE_S)
    if told:
        raise Interrupted
    return failures


def _begun(workshop: Workshop, run: Run, place: Place) -> Job:
    folder = workshop.folder(run)
    is_fresh = not (folder.weights.exists() or folder.checkpoints.exists())
    log = (folder.root / LOG).open("a", encoding="utf-8")
    job = Job(run, place, workshop.commands(run, place), log, time.monotonic(), is_fresh)
    job.next_command(workshop)
    return job


def _is_over(workshop: Workshop, job: Job) -> bool:
    """Whether a job has ended, well or not; where a command of it ended well, start the next one."""
    if job.child is None:
        return True
    code = job.child.poll()
    return code is not None and (code != 0 or not job.next_command(workshop))


def _failure(workshop: Workshop, job: Job) -> str:
    print(f"FAILED {job.run.label}, seed {job.run.seed}", flush=True)
    log = workshop.folder(job.run).root / LOG
    end = log.read_text(encoding="utf-8", errors="replace")[-LOG_END:]
    return f"{job.run.label}, seed {job.run.seed} failed; the end of {log}:\n{end}"


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of ending by them."""
    told: list[int] = []
    before = {s: signal.signal(s, lambda number, frame: told.append(number)) for s in STOPS}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(jobs: Sequence[Job]) -> None:
    """Tell all children to save and end, and wait for them."""
    if jobs:
        print(f"interrupted: {len(jobs)} trainings save and end", flush=True)
    for job in jobs:
        if job.child is not None:
            job.child.terminate()
    for job in jobs:
        if job.child is not None:
            job.child.wait()
        job.log.close()
