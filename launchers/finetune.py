"""Finetune on a folder of your data with one command; nothing needs to be set.

    sh launchers/finetune.sh --data DIR [DIR ...] [--init RUN|FILE|hub|none] [--hours H] [--workdir RUN]

Reads any layout that make_shards.py reads, holds out a val split where there is none, chooses recipe, input
sizes, micro-batches and steps for this machine and the time, starts from all that fits of RUN or FILE, trains
with early stop, evaluates, and leaves weights, submission, export and report in RUN.
"""

import argparse
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, load_plugins

ROOT = Path(__file__).resolve().parent.parent


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="DIR", help="your data; NAME=DIR names a task"
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/finetune"), help="(runs/finetune)")
    parser.add_argument("--init", help="a run, a file of weights, hub or none (with GPUs hub, else none)")
    parser.add_argument("--hours", type=float, default=1.0, help="time for everything (1)")
    parser.add_argument("--gpus", type=int, help="how many to use; 0 for the processor (all)")
    parser.add_argument("--lora", action="store_true", help="train low-rank adapters on the frozen trunk")
    parser.add_argument("--freeze", action="store_true", help="train heads on the frozen trunk")
    parser.add_argument("--recipe", help="another recipe to start from than the one chosen")
    parser.add_argument("--classes", nargs="*", default=[], metavar="TASK=N", help="as for make_shards.py")
    parser.add_argument(
        "--val-share", type=float, default=0.15, help="of train, where there is no val (0.15)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="override one choice")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    add_plugin_option(parser)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    from ufo_large.data.errors import DataError
    from ufo_large.finetuning.children import ChildFailed

    try:
        load_plugins(args.plugin)
        measure_here(args) if args.measure else finetune_all(args)
    except ChildFailed as error:
        sys.exit(error.code if error.code > 0 else 1)
    except (ValueError, DataError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where it stopped")


def finetune_all(args: argparse.Namespace) -> None:
    from ufo_large.finetuning.command import finetune
    from ufo_large.finetuning.options import Options

    names = (
        "data",
        "workdir",
        "init",
        "gpus",
        "hours",
        "recipe",
        "lora",
        "freeze",
        "classes",
        "val_share",
        "seed",
    )
    options = Options(**{name: getattr(args, name) for name in names}, assignments=args.set)
    finetune(options, ROOT, args.plugin)


def measure_here(args: argparse.Namespace) -> None:
    """One rank of the measurement that the command starts."""
    from ufo_large.distributed import ds_config
    from ufo_large.finetuning.pace import PACE_FILE, measure
    from ufo_large.processes.launcher import LAUNCHER
    from ufo_large.recipes import load_recipe

    LAUNCHER.start()
    config = load_recipe(args.measure)
    ds = ds_config.read_named(config.ds, ROOT / "ds_configs")
    measure(config, args.data[0], ds, args.workdir / PACE_FILE)


if __name__ == "__main__":
    main()
