"""Train a recipe: deepspeed --num_gpus 8 launchers/train.py --data SHARDS [--recipe NAME] [--workdir RUN]."""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, apply_overrides, load_plugins
from ufo_large.data.errors import DataError
from ufo_large.distributed import comm, ds_config
from ufo_large.recipes import load_recipe
from ufo_large.train.interruption import EXIT_CODE
from ufo_large.train.run import train

DS_CONFIGS = Path(__file__).resolve().parent.parent / "ds_configs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="vit_g", help="a name in ufo_large/recipes, or PATH.py (vit_g)")
    parser.add_argument("--data", required=True, help="folder or address of the shards")
    parser.add_argument("--workdir", type=Path, help="where the run goes (runs/ and the recipe's name)")
    parser.add_argument("--ds", help="DeepSpeed JSON: a path, a name in ds_configs, or none (one process)")
    parser.add_argument("--resume", default="none", help="none, auto, or a checkpoint folder")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="override one field")
    add_plugin_option(parser)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    is_first = os.environ.get("RANK", "0") == "0"
    try:
        load_plugins(arguments.plugin)
        config = apply_overrides(load_recipe(arguments.recipe), arguments.set)
        if arguments.ds:
            config = dataclasses.replace(config, ds=arguments.ds)
        workdir = arguments.workdir or Path("runs") / config.name
        trainer = train(config, arguments.data, workdir, read_ds(config.ds), arguments.resume)
    except DataError as error:
        sys.exit("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]))
    except FloatingPointError as error:  # on all ranks together
        sys.exit(f"error: {error}" if is_first else 1)
    except ValueError as error:
        if getattr(error, "__notes__", None):  # raised while training: the rank that saw it tells all
            raise
        if is_first or is_of_one_rank(error):
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if trainer is not None and trainer.is_interrupted:
        sys.exit(EXIT_CODE)


def is_of_one_rank(error: ValueError) -> bool:
    """Whether the first rank perhaps did not see this; before the ranks are joined all read the same."""
    return comm.world_size() > 1 and not isinstance(error, comm.AgreedError)


def read_ds(name: str) -> dict | None:
    if name == "none":
        return None
    path = Path(name) if name.endswith(".json") else DS_CONFIGS / f"{name}.json"
    return ds_config.read(path)


if __name__ == "__main__":
    main()
