"""What does a run survive? Random faults at random moments; then it goes on, and its weights are compared.

    python benchmarks/faults.py [--minutes 60] [--faults 300] [--seed 0] [--only NAME ...] [--write]

Two ranks on processors, ZeRO-3, one loader worker per task and rank. The weights at the end must be those of
a run that nothing happened to, bit for bit. Ends with code 1 where one of the promises was broken.
"""

import argparse
import contextlib
import platform
import random
import shlex
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from datetime import date
from pathlib import Path

from ufo_large.testing.fault_runs import HANG_TIMEOUT_S, SAVE_EVERY, STEPS, FaultRun
from ufo_large.testing.faults import FAULTS, START_S, Trial, try_fault
from ufo_large.testing.tiny_shards import tiny_shards
from ufo_large.tracking.environment import commit_text, describe_environment

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="no fault is begun after these (60)")
    parser.add_argument("--faults", type=int, default=300, help="at most so many (300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), metavar="NAME")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep folders of broken promises here")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/faults_*.md")
    options = parser.parse_args()
    began = time.monotonic()
    found: dict[str, list[Trial]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for name, trial in trials(options, Path(folder), began):
            found[name].append(trial)
            print(f"{sum(map(len, found.values()))} {name}: {said(trial)}", flush=True)
    text = render(found, options, time.monotonic() - began)
    print(text)
    if options.write:
        (RESULTS / f"faults_{platform.machine()}_{date.today():%Y%m}.md").write_text(text)
    sys.exit(any(is_broken(trial) for row in found.values() for trial in row))


def trials(options: argparse.Namespace, folder: Path, began: float):
    """Yield (name, trial), each fault in turn."""
    shards = tiny_shards(folder / "data")
    undisturbed = FaultRun(shards, folder / "undisturbed")
    undisturbed.start()
    if undisturbed.wait(START_S) != [0, 0]:
        raise RuntimeError(undisturbed.told()[-3000:])
    reference, names = undisturbed.weights(), options.only or list(FAULTS)
    for number in range(options.faults):
        if time.monotonic() - began > 60 * options.minutes:
            return
        name, place = names[number % len(names)], folder / f"trial-{number}"
        fault, rng = FAULTS[name], random.Random(f"{options.seed} {number}")
        with contextlib.ExitStack() as held:
            try:
                hosts = held.enter_context(fault.place(place))
            except RuntimeError as error:
                print(f"{name}: left out ({error})")
                continue
            trial = try_fault(fault, shards, place, rng, reference, hosts)
            if is_broken(trial) and options.keep:
                shutil.copytree(place, options.keep / f"{number}-{name.replace(' ', '-')}", symlinks=True)
            yield name, trial
        shutil.rmtree(place, ignore_errors=True)


def is_broken(trial: Trial) -> bool:
    return not (trial.detected and trial.is_exact) or trial.ended_s is None or trial.left > 0


def said(trial: Trial) -> str:
    ended = "did not end" if trial.ended_s is None else f"ended within {trial.ended_s:.1f} s"
    told = "detected" if trial.detected else "NOT DETECTED"
    exact = "exact" if trial.is_exact else "NOT EXACT"
    return f"{told}, {ended}, {exact}, {trial.lost_steps} steps lost, {trial.left} processes left"


def render(found: dict[str, list[Trial]], options: argparse.Namespace, seconds: float) -> str:
    count = sum(map(len, found.values()))
    only = f"--only {shlex.join(options.only)} " if options.only else ""
    lines = [
        "# Faults",
        "",
        f"Commit: {commit_text(describe_environment()['commit'])}. Command: `python benchmarks/faults.py "
        f"--minutes {options.minutes:g} --faults {options.faults} --seed {options.seed} {only}--write`: "
        f"{count} faults in {seconds / 60:.0f} minutes.",
        f"Checkpoints every {SAVE_EVERY} of {STEPS} steps; a rank that stops is given up after "
        f"{HANG_TIMEOUT_S} seconds.",
        "",
        "| fault | how many | detected | ended within, s | resumed bitwise | lost steps, most | left over |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in found.items():
        ended = [trial.ended_s for trial in row]
        within = "hung" if None in ended else f"{max(ended):.1f}"
        figures = (len(row), sum(t.detected for t in row), within, sum(t.is_exact for t in row))
        figures += (max(t.lost_steps for t in row), sum(t.left for t in row))
        lines.append(f"| {name} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
