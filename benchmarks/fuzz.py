"""Do damaged files end in anything but a message of ours? Every reader, with files damaged at random.

    python benchmarks/fuzz.py [--inputs 200000] [--seed 0] [--only NAME ...] [--write]

Prints exceptions that are not the project's own, with the number of the input: the same seed gives it again.
"""

import argparse
import platform
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from ufo_large.recipes import load_recipe
from ufo_large.testing.fuzzing import Outcome, fuzz, targets
from ufo_large.tracking.environment import commit_text, describe_environment

RESULTS = Path(__file__).parent / "results"
COSTLY = (
    "label list",
    "contest's COCO",
    "COCO",
    "VOC",
    "YOLO labels",
    "data.yaml",
    "CSV",
    "metadata.jsonl",
    "shard",
)
"""Those that read a whole data set per input have a tenth of the inputs of the others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=200_000, help="in all (200000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these files alone")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/fuzz_*.md")
    options = parser.parse_args()
    found: dict[str, Outcome] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        known = targets(Path(folder), load_recipe("demo"))
        chosen = {name: known[name] for name in options.only or known}
        shares = {name: 0.1 if name in COSTLY else 1.0 for name in chosen}
        for name, target in chosen.items():
            count = round(options.inputs * shares[name] / sum(shares.values()))
            found[name] = outcome = fuzz(target, count, options.seed)
            print(row(name, outcome), flush=True)
            for told in outcome.wrong[:5]:
                print(f"    {told}", flush=True)
    text = render(found, options, time.monotonic() - began)
    if options.write:
        (RESULTS / f"fuzz_{platform.machine()}_{date.today():%Y%m}.md").write_text(text)
    sys.exit(any(outcome.wrong or outcome.slow for outcome in found.values()))


def row(name: str, outcome: Outcome) -> str:
    figures = (outcome.inputs, outcome.read, outcome.refused, len(outcome.wrong), outcome.slow)
    return f"| {name} | {' | '.join(map(str, figures))} | {outcome.slowest_s:.2f} |"


def render(found: dict[str, Outcome], options: argparse.Namespace, seconds: float) -> str:
    lines = [
        "# Damaged files",
        "",
        f"Commit: {commit_text(describe_environment()['commit'])}. Command: `python benchmarks/fuzz.py "
        f"--inputs {options.inputs} --seed {options.seed} --write`, {seconds / 60:.0f} minutes.",
        "Read: still valid, or the doctor lists its faults. Refused: an error of ours that names the file.",
        "",
        "| file | inputs | read | refused | other exceptions | over 10 s | slowest, s |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(row(name, outcome) for name, outcome in found.items()),
    ]
    total = Outcome()
    for outcome in found.values():
        total.inputs += outcome.inputs
        total.read += outcome.read
        total.refused += outcome.refused
        total.slow += outcome.slow
        total.wrong += outcome.wrong
        total.slowest_s = max(total.slowest_s, outcome.slowest_s)
    return "\n".join([*lines, row("all", total)]) + "\n"


if __name__ == "__main__":
    main()
