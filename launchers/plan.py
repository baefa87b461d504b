"""Say what a model needs before renting machines: memory, time, energy and price; no GPU is asked for.

python launchers/plan.py --models                               # the size of every trunk
python launchers/plan.py --recipe contest_vit_g --gpus 8 --gpu a100-40g
python launchers/plan.py --recipe contest_vit_g --gpus 64 --nodes 8 --gpu h100 --find --price 2.5
python launchers/plan.py --recipe small --gpus 1 --gpu mine --gpu-memory 12 --gpu-tflops 60 --bandwidth 500
"""

import argparse
import dataclasses
import json
import sys
from dataclasses import asdict
from pathlib import Path

from ufo_large.config import add_plugin_option, apply_overrides, load_plugins
from ufo_large.recipes import load_recipe

DS_CONFIGS = Path(__file__).resolve().parent.parent / "ds_configs"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--models", action="store_true", help="print the size of every trunk")
    what.add_argument("--recipe", metavar="NAME", help="plan a recipe; name or PATH.py")
    parser.add_argument(
        "--parts",
        nargs="+",
        help="with --models, what of a block has experts: mlp, attention, norms (mlp)",
    )
    recipe = parser.add_argument_group("with --recipe")
    recipe.add_argument("--data", metavar="SHARDS", help="their classes and boxes (those of the contest)")
    recipe.add_argument("--gpus", type=int, default=8, help="GPUs in all machines (8)")
    recipe.add_argument("--nodes", type=int, default=1, help="machines (1)")
    recipe.add_argument("--gpu", metavar="NAME", help="a100-40g, a100-80g, h100, h200, ... (h200)")
    recipe.add_argument("--gpu-memory", type=float, metavar="GIB", help="of a GPU that is not known")
    recipe.add_argument("--gpu-tflops", type=float, metavar="N", help="its dense bf16 peak")
    recipe.add_argument("--bandwidth", type=float, metavar="GB/S", help="of its memory")
    recipe.add_argument("--ds", help="DeepSpeed JSON: a path, or a name in ds_configs (the recipe's)")
    recipe.add_argument("--set", action="append", metavar="a.b=value", help="override one field")
    recipe.add_argument("--budget", type=float, metavar="HOURS", help="say which steps end in so many hours")
    recipe.add_argument("--price", type=float, metavar="P", help="of an hour of one GPU, in any currency")
    recipe.add_argument("--find", action="store_true", help="choose the fastest settings that fit")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on the last line")
    add_plugin_option(parser)
    arguments = parser.parse_args()
    of_recipe = [
        action.dest for action in recipe._group_actions if getattr(arguments, action.dest) != action.default
    ]
    if arguments.recipe and arguments.parts:
        parser.error("--parts goes with --models; a recipe's own are model.trunk.router.parts")
    if arguments.models and of_recipe:
        parser.error(f"--{of_recipe[0].replace('_', '-')} goes with --recipe")
    for option in ("budget", "price"):
        if (value := getattr(arguments, option)) is not None and not value > 0:
            parser.error(f"--{option} {value:g}: must be above 0")
    return arguments


def main() -> None:
    arguments = parse()
    try:
        load_plugins(arguments.plugin)
        (plan_models if arguments.models else plan_recipe)(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def plan_models(arguments: argparse.Namespace) -> None:
    from ufo_large.planning.sizes import PRESETS, size_table, trunk_size

    parts = tuple(arguments.parts or ["mlp"])
    sizes = [trunk_size(preset, parts=parts) for preset in PRESETS]
    print(size_table(sizes))
    if arguments.json:
        print(json.dumps({"models": [asdict(size) for size in sizes]}))


def plan_recipe(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from ufo_large.distributed import ds_config
    from ufo_large.planning.cluster import Cluster
    from ufo_large.planning.gpus import gpu_named
    from ufo_large.planning.loads import sizes_of
    from ufo_large.planning.plan import Planner
    from ufo_large.planning.search import alternatives, fastest
    from ufo_large.planning.text import alternatives_text, plan_text

    figures = arguments.gpu_memory, arguments.gpu_tflops, arguments.bandwidth
    gpu = gpu_named(arguments.gpu or "h200", *figures)
    cluster = Cluster(gpu, arguments.gpus, arguments.nodes)
    config = apply_overrides(load_recipe(arguments.recipe), arguments.set or [])
    if arguments.ds:
        config = dataclasses.replace(config, ds=arguments.ds)
    with Console(stderr=True).status("planning") as line:
        planner = Planner(
            config,
            sizes_of(config, arguments.data),
            cluster,
            lambda name: ds_config.read_named(name, DS_CONFIGS),
            arguments.price,
            tell=line.update,
        )
        plan = fastest(planner) if arguments.find else planner.plan(planner.asked)
        others = [] if arguments.find else alternatives(planner)
    print(plan_text(planner, plan, arguments.budget))
    if arguments.find:
        print(f"\nThe fastest that fits: {' '.join(plan.settings) or 'the recipe as it is'}")
    else:
        print(f"\n{alternatives_text(others)}")
    if arguments.json:
        print(json.dumps(planner.described(plan) | {"alternatives": [other.to_json() for other in others]}))


if __name__ == "__main__":
    main()
