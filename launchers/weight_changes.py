"""Which way did training move the trunk? python launchers/weight_changes.py RUN [RUN ...] --out DIR

Compares what finished runs that start from the same trunk have changed in it: how far, relative to the start,
and in which direction. Of runs with experts each expert has a row, and compared are the places that have
them; else all blocks. A cosine near 0 between two tasks: they change the trunk in different directions, and
one trunk for both has room for that. A negative one: what one task changes, the other takes back. Between
a task alone and the joint run: how much of the joint change is that task's.

Takes seconds and no GPU. Printed and kept as DIR/weight_changes.md, with a picture, weight_changes.svg.
"""

import argparse
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, load_plugins


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for note and picture")
    add_plugin_option(parser)
    arguments = parser.parse_args()
    from ufo_large.comparing.weight_changes_report import report_changes

    try:
        load_plugins(arguments.plugin)
        print(report_changes(arguments.runs, arguments.out))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
