"""What the product costs beside what a user would write by hand, on CPUs: ratios that `make bench` holds to.

    python benchmarks/cpu_ratios.py            # measure; print beside the committed values; fail where behind
    python benchmarks/cpu_ratios.py --write    # and keep what was measured as the values to hold to

Each ratio is product / rival: below 1 the product is faster. Product and rival take turns in one process
group, every other round in the other order; the ratio is of the fastest round of each, since other programs
only add time. A ratio is behind where its lowest round is above the committed one's highest.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import cpu_pairs
import torch
import workload

from ufo_large.testing.distributed import run_ranks
from ufo_large.tracking.environment import commit_text, describe_environment

FILE = workload.RESULTS / "cpu_ratios.json"
ALONE, TOGETHER = cpu_pairs.ALONE, cpu_pairs.TOGETHER


@dataclass(frozen=True, slots=True)
class Ratio:
    """A pair's result: seconds of the fastest rounds, their ratio, and the rounds' lowest and highest one."""

    case: str
    product: float
    rival: float
    ratio: float
    low: float
    high: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", nargs="*", default=[*ALONE, *TOGETHER], metavar="CASE")
    parser.add_argument("--toy", action="store_true", help="small models: whether it runs at all")
    parser.add_argument("--write", action="store_true", help=f"write results/{FILE.name}")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on the last line")
    args = parser.parse_args()
    if unknown := sorted(set(args.cases) - {*ALONE, *TOGETHER}):
        parser.error(f"--cases {unknown[0]!r}: no such case; there are {'; '.join([*ALONE, *TOGETHER])}")
    committed = json.loads(FILE.read_text())["ratios"] if FILE.exists() else {}
    about = {"commit": commit_text(describe_environment()["commit"]), "rounds": args.rounds}
    about["threads"] = torch.get_num_threads()
    found, behind = {}, []
    for row in measured(args.cases, args.rounds, args.toy):
        found[row.case] = asdict(row) | about
        before = committed.get(row.case)
        print(line(row, before), flush=True)
        if before is not None and row.low > before["high"]:
            behind.append(row.case)
    if args.write:
        FILE.write_text(json.dumps({"ratios": {**committed, **found}}, indent=1) + "\n")
    if args.json:
        print(json.dumps({"ratios": found, "behind": behind}))
    if behind and not args.write:
        sys.exit(f"slower than committed, by more than the rounds differ: {'; '.join(behind)}")


def measured(cases: list[str], rounds: int, toy: bool) -> Iterator[Ratio]:
    for case in cases:
        if case in TOGETHER:
            yield Ratio(case, **run_ranks(on_ranks, 2, case, rounds, toy, timeout=3600.0)[0])
        else:
            yield Ratio(case, **paired(*ALONE[case](toy), rounds))


def on_ranks(case: str, rounds: int, toy: bool) -> dict[str, float]:
    return paired(*TOGETHER[case](toy), rounds)


def paired(product: Callable[[], Any], rival: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Time both in turn, once to warm up and then `rounds` times; the first three steps of ZeRO-3 differ."""
    for _ in range(3):
        product()
        rival()
    seconds: dict[Callable, list[float]] = {product: [], rival: []}
    for number in range(rounds):
        for work in (product, rival) if number % 2 else (rival, product):
            start = time.perf_counter()
            work()
            seconds[work].append(time.perf_counter() - start)
    ratios = [ours / theirs for ours, theirs in zip(seconds[product], seconds[rival], strict=True)]
    ours, theirs = min(seconds[product]), min(seconds[rival])
    return {
        "product": ours,
        "rival": theirs,
        "ratio": ours / theirs,
        "low": min(ratios),
        "high": max(ratios),
    }


def line(row: Ratio, before: dict[str, Any] | None) -> str:
    spread = f"({row.low:.3f} to {row.high:.3f})"
    told = f"{row.case}: {row.product:.4g} s / {row.rival:.4g} s = {row.ratio:.3f} {spread}"
    if before is None:
        return told
    return f"{told}; committed {before['ratio']:.3f} ({before['low']:.3f} to {before['high']:.3f})"


if __name__ == "__main__":
    main()
