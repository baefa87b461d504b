"""Pack a user's folders into shards: python data_sharding/make_shards.py --data DIR [DIR ...] --out SHARDS"""

import argparse
import os
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, load_plugins


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders with the data: a root of the contest's layout, a folder that holds such roots, "
        "or another known layout; NAME=DIR names its task, or goes before the names of several",
    )
    parser.add_argument(
        "--out", required=True, help="folder for the shards; an interrupted run goes on in it"
    )
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--shard-size", type=float, default=256, metavar="MB", help="input per shard")
    parser.add_argument(
        "--short-side",
        type=int,
        metavar="PX",
        help="scale larger train and val pictures down to this and store them as JPEG",
    )
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality of scaled pictures")
    parser.add_argument(
        "--seekable",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="put restart markers into train and val JPEGs, so that crops decode faster; no pixel changes",
    )
    parser.add_argument(
        "--classes",
        nargs="*",
        default=[],
        metavar="TASK=N",
        help="number of classes of a task whose files do not say it",
    )
    parser.add_argument(
        "--val-share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="hold out this share of train for validation in tasks without a val split (0: none)",
    )
    parser.add_argument("--seed", type=int, default=0, help="which images --val-share holds out")
    parser.add_argument("--like", metavar="SHARDS", help="keep to the class lists of these shards")
    add_plugin_option(parser)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    from ufo_large.data.shard_index import read_dataset
    from ufo_large.data.sharding import ShardingOptions, make_shards, parse_class_counts
    from ufo_large.data.stored_sample import Transcode
    from ufo_large.data.val_split import read_held_out

    load_plugins(args.plugin)
    options = ShardingOptions(
        jobs=args.jobs,
        shard_megabytes=args.shard_size,
        transcode=Transcode(short_side=args.short_side, quality=args.quality, seekable=args.seekable),
        counts=parse_class_counts(args.classes),
        known=read_dataset(args.like).tasks if args.like else {},
        val_share=args.val_share,
        seed=args.seed,
    )
    dataset = make_shards(args.data, args.out, options)
    for held in read_held_out(Path(args.out)):
        print(held)
    for task, by_split in dataset.splits.items():
        counts = ", ".join(f"{split} {index.count}" for split, index in by_split.items())
        print(
            f"{task}: {dataset.tasks[task].kind}, {dataset.tasks[task].num_classes} classes; images: {counts}"
        )
    print(f"{dataset.root}: fingerprint {dataset.fingerprint[:16]}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where it stopped")
