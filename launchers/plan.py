"""Say what a model needs before renting machines.

python launchers/plan.py --models                               # the size of every trunk
python launchers/plan.py --recipe contest_vit_g --ranks 8       # memory and hours, estimated
"""

import argparse
import json
import sys
from dataclasses import asdict

from ufo_large.config import add_plugin_option, apply_overrides, load_plugins
from ufo_large.recipes import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--models", action="store_true", help="print the size of every trunk")
    what.add_argument("--recipe", metavar="NAME", help="estimate memory and hours; name or PATH.py")
    parser.add_argument(
        "--parts",
        nargs="+",
        help="with --models, what of a block has experts: mlp, attention, norms (mlp)",
    )
    parser.add_argument("--ranks", type=int, help="with --recipe: number of GPUs (8)")
    parser.add_argument(
        "--set", action="append", metavar="a.b=value", help="with --recipe: override one field"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object on the last line")
    add_plugin_option(parser)
    arguments = parser.parse_args()
    if arguments.recipe and arguments.parts:
        parser.error("--parts goes with --models; a recipe's own are model.trunk.router.parts")
    if arguments.models and (arguments.ranks is not None or arguments.set):
        parser.error("--ranks and --set go with --recipe")
    if arguments.ranks is not None and arguments.ranks < 1:
        parser.error(f"--ranks {arguments.ranks}: give the number of GPUs, at least 1")
    try:
        load_plugins(arguments.plugin)
        (plan_models if arguments.models else plan_recipe)(arguments)
    except ValueError as error:
        sys.exit(f"error: {error}")


def plan_models(arguments: argparse.Namespace) -> None:
    from ufo_large.planning.sizes import PRESETS, size_table, trunk_size

    parts = tuple(arguments.parts or ["mlp"])
    sizes = [trunk_size(preset, parts=parts) for preset in PRESETS]
    print(size_table(sizes))
    if arguments.json:
        print(json.dumps({"models": [asdict(size) for size in sizes]}))


def plan_recipe(arguments: argparse.Namespace) -> None:
    from ufo_large.planning.recipe_cost import Load, recipe_cost

    config, ranks = apply_overrides(load_recipe(arguments.recipe), arguments.set or []), arguments.ranks or 8
    loads = {
        kind: Load(task.loader.micro_batch, task.loader.image_size, task.stages[-1][1])
        for kind, task in config.tasks.items()
    }
    cost = recipe_cost(config.model, loads, config.steps, ranks, config.ema is not None)
    print(f"{config.name} on {ranks} ranks, {config.steps} steps, ZeRO-3 in bf16; an estimate\n{cost}")
    if arguments.json:
        print(json.dumps({"recipe": config.name, "ranks": ranks, **asdict(cost)}))


if __name__ == "__main__":
    main()
