"""Say what a model needs before renting machines: python launchers/plan.py --models."""

import argparse
import json
import sys
from dataclasses import asdict

from ufo_large.config import add_plugin_option, load_plugins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", action="store_true", required=True, help="print the size of every trunk")
    parser.add_argument(
        "--parts", nargs="+", default=["mlp"], help="what of a block has experts: mlp, attention, norms (mlp)"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object on the last line")
    add_plugin_option(parser)
    arguments = parser.parse_args()
    try:
        load_plugins(arguments.plugin)
        plan(arguments)
    except ValueError as error:
        sys.exit(f"error: {error}")


def plan(arguments: argparse.Namespace) -> None:
    from ufo_large.planning.sizes import PRESETS, size_table, trunk_size

    sizes = [trunk_size(preset, parts=tuple(arguments.parts)) for preset in PRESETS]
    print(size_table(sizes))
    if arguments.json:
        print(json.dumps({"models": [asdict(size) for size in sizes]}))


if __name__ == "__main__":
    main()
