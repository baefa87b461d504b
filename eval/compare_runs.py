"""Compare scored runs side by side. The last line printed is JSON.

    python eval/compare_runs.py RUN [RUN ...] [--single RUN [RUN ...]]

With --single, the mean relative gain over these single-task runs (delta-m) stands beside.
"""

import argparse
import json
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, load_plugins


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders with a metrics.json")
    parser.add_argument("--single", nargs="+", type=Path, default=[], metavar="RUN", help="single-task runs")
    add_plugin_option(parser)
    args = parser.parse_args()
    try:
        load_plugins(args.plugin)
        compare(args)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def compare(args: argparse.Namespace) -> None:
    from rich.console import Console

    from ufo_large.evaluation.compare import comparison_table, delta_m, read_results
    from ufo_large.evaluation.table import titles

    results = read_results([*args.runs, *(run for run in args.single if run not in args.runs)])
    singles = [results[str(run)] for run in args.single]
    gains = {str(run): delta_m(results[str(run)], singles) for run in args.runs} if singles else {}
    Console().print(comparison_table(results, gains))
    keys = (*titles(results.values()), "tasks", "protocol")
    rows = [
        {"run": name, **{key: result.get(key) for key in keys}, "delta_m": gains.get(name)}
        for name, result in results.items()
    ]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
