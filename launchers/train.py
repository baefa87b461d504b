"""Train a recipe: deepspeed --num_gpus 8 launchers/train.py --data SHARDS [--recipe NAME] [--workdir RUN].

    deepspeed --num_gpus 1 launchers/train.py --recipe small --data SHARDS --workdir RUN --set pretrained=hub

Fields of the recipe that are set most often (--fields prints all of them with the recipe's values):

    --set pretrained=hub                                   public weights of the trunk; or a file, or a name
    --set steps=2000                                       optimizer steps
    --set optimizer.learning_rate=1e-4
    --set tasks.classification.loader.micro_batch=8        images per rank and micro-batch
    --set tasks.detection.loader.image_size=640,640        height,width
    --set tasks.segmentation.micro_batches=2               micro-batches per step
    --set model.trunk.name=vit_large_patch16_224           a timm ViT
    --set model.trunk.router=learned                       how tasks share the trunk
    --set model.heads.detection=detr                       the head of a kind of task
    --set balancer=pcgrad                                  how the tasks' gradients are combined
    --set evaluate_every=500                               validate while training
    --set tracking.wandb=online                            or offline, or disabled
    --set tracking.tensorboard=true                        event files in RUN/tensorboard
"""

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path

from ufo_large.config import add_plugin_option, apply_overrides, load_plugins, seconds_of, settings
from ufo_large.data.errors import DataError
from ufo_large.distributed import ds_config
from ufo_large.recipes import known_recipes, load_recipe

DS_CONFIGS = Path(__file__).resolve().parent.parent / "ds_configs"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    recipes = f"{', '.join(known_recipes())}, or PATH.py (contest_vit_g)"
    parser.add_argument("--recipe", default="contest_vit_g", metavar="NAME", help=recipes)
    parser.add_argument("--data", metavar="SHARDS", help="folder or address of the shards")
    parser.add_argument(
        "--workdir", type=Path, metavar="RUN", help="where the run goes (runs/ and the recipe's name)"
    )
    parser.add_argument("--ds", help="DeepSpeed JSON: a path, a name in ds_configs, or none (one process)")
    parser.add_argument("--resume", default="none", help="none, auto, or a checkpoint folder")
    parser.add_argument(
        "--time-limit", type=duration, metavar="2h", help="save and leave with code 75 before it has passed"
    )
    parser.add_argument(
        "--hang-timeout",
        type=duration,
        default=600.0,
        metavar="10m",
        help="end with code 75 where a rank gives no sign of life for so long (10m); 0: never",
    )
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="override one field")
    parser.add_argument(
        "--auto", action="store_true", help="checkpointing and micro-batches that fit these GPUs, by plan"
    )
    parser.add_argument("--fields", action="store_true", help="print every field of the recipe, and stop")
    add_plugin_option(parser)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.fields:
        parser.error("the following arguments are required: --data")
    return arguments


def duration(text: str) -> float:
    """Return the seconds of a duration, or have the parser refuse it in the words of what is wrong."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main() -> None:
    started = time.monotonic()
    arguments = parse()
    from ufo_large.processes.launcher import LAUNCHER

    LAUNCHER.start()
    from ufo_large.distributed.comm import PortTaken
    from ufo_large.train.interruption import EXIT_CODE
    from ufo_large.train.limits import Limits
    from ufo_large.train.not_finite import TriedAgain
    from ufo_large.train.run import train

    is_first = os.environ.get("RANK", "0") == "0"
    try:
        load_plugins(arguments.plugin)
        config = apply_overrides(load_recipe(arguments.recipe), arguments.set)
        if arguments.ds:
            config = dataclasses.replace(config, ds=arguments.ds)
        if arguments.fields:
            print("\n".join(f"{path}={value}" for path, value in settings(config)))
            return
        workdir = arguments.workdir or Path("runs") / config.name
        ds = ds_config.read_named(config.ds, DS_CONFIGS)
        limits = Limits(
            ends_at=None if arguments.time_limit is None else started + arguments.time_limit,
            hang_timeout_s=arguments.hang_timeout or None,
        )
        trainer = train(config, arguments.data, workdir, ds, arguments.resume, limits, arguments.auto)
    except (DataError, OSError) as error:
        sys.exit("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]))
    except (PortTaken, TriedAgain) as error:  # as things are now; not for good
        if is_first:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)
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
    from ufo_large.distributed import comm

    return comm.world_size() > 1 and not isinstance(error, comm.AgreedError)


if __name__ == "__main__":
    main()
