"""Is one joint model better than a model per task, and what do routing and balancing add?

    python launchers/compare_tasks.py --recipe small --data SHARDS --seeds 3 --out DIR --set pretrained=FILE
    python launchers/compare_tasks.py --recipe small --data SHARDS --out DIR --hours    # how long it takes
    python launchers/compare_tasks.py --out DIR --table                                 # what is there so far

Trains and scores, at equal images per task and with seeds 0 to N-1: each task alone; the plain sum (a shared
trunk, summed losses); the plain sum with each router; with each balancer; then the router and the balancer
with the best mean score on val together. Prints tables and writes comparison.md, .svg and .html into DIR.

Give the same command again after an interruption: finished runs are skipped, others go on. DIR/records.jsonl
keeps all that the tables need; with a copy of it the work goes on elsewhere, with --only as parts.

--changes asks what the recipe's choices bring: rows of the recipe as it is and with one setting changed each,
as --changes optimizer.layer_decay=1.0 ema=none. --only changes trains just these.

A router or balancer takes settings: --routers residual residual:fraction=0.5 task:blocks=8,10. `constants`
among the balancers: fixed weights, the best on val of: each task three times, each a third, those that make
the plain sum's gradients equally long.
"""

import argparse
import json
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, load_plugins

ROOT = Path(__file__).resolve().parent.parent
ROUTERS = ("shared", "task", "learned", "token_topk", "residual")
BALANCERS = ("tbgn", "nash_mtl", "pcgrad", "ntkmtl")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="small", metavar="NAME", help="or PATH.py (small)")
    parser.add_argument("--data", type=str, metavar="SHARDS", help="folder of shards with at least two tasks")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/comparison"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs per row (3)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="K", help="seeds K to K+N-1 (0)")
    parser.add_argument(
        "--routers", nargs="*", default=ROUTERS, metavar="NAME", help=f"({' '.join(ROUTERS)})"
    )
    parser.add_argument(
        "--balancers", nargs="*", default=BALANCERS, metavar="NAME", help=f"({' '.join(BALANCERS)})"
    )
    parser.add_argument(
        "--pairs", nargs="*", default=(), metavar="ROUTER+BALANCER", help="rows of both, such as task+tbgn"
    )
    parser.add_argument(
        "--changes",
        nargs="*",
        default=(),
        metavar="a.b=value",
        help="rows of the recipe with one setting changed",
    )
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="for all rows")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ROW", help='such as "plain sum" best changes'
    )
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (1)")
    parser.add_argument("--cores", type=int, help="processor cores of one training (all)")
    parser.add_argument("--ranks", type=int, help="processes of one training (its GPUs; 1 without)")
    parser.add_argument("--records", type=Path, metavar="FILE", help="(DIR/records.jsonl)")
    parser.add_argument(
        "--table", action="store_true", help="train nothing: make the tables from the records"
    )
    parser.add_argument(
        "--over", metavar="ROW", help='a table of the leads over this row, as "balancer: tbgn"'
    )
    parser.add_argument("--split", choices=("val", "test"), help="whose figures the tables have (test)")
    parser.add_argument("--hours", action="store_true", help="train nothing: say how long the rest will take")
    parser.add_argument("--json", action="store_true", help="print the rows as one JSON line last")
    add_plugin_option(parser)
    args = parser.parse_args(arguments)
    if args.data is None and not args.table:
        parser.error("the following arguments are required: --data")
    return args


def main() -> None:
    args = parse()
    from ufo_large.comparing.command import compare, show
    from ufo_large.comparing.options import Options
    from ufo_large.comparing.trainings import Interrupted
    from ufo_large.data.errors import DataError

    records, failures = args.records or args.out / "records.jsonl", []
    try:
        load_plugins(args.plugin)
        if not args.table:
            names = ("recipe", "data", "out", "seeds", "first_seed", "ranks", "jobs", "cores")
            chosen = {name: getattr(args, name) for name in names}
            lists = {
                "routers": args.routers,
                "balancers": args.balancers,
                "pairs": args.pairs,
                "changes": args.changes,
                "settings": args.set,
                "only": args.only,
            }
            options = Options(**chosen, **{name: tuple(words) for name, words in lists.items()})
            failures = compare(options, records, ROOT, hours_only=args.hours)
        if not args.hours:
            rows = show(args.out, records, args.split, args.over)
            if args.json:
                print(json.dumps(rows))
    except Interrupted:
        sys.exit("interrupted; the same command goes on where it stopped")
    except (OSError, RuntimeError, ValueError, DataError) as error:
        sys.exit("\n".join([f"error: {error}", *failures]))
    if failures:
        sys.exit("\n".join([f"error: {len(failures)} runs failed", *failures]))


if __name__ == "__main__":
    main()
