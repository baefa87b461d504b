"""Compute a saved batch's losses again: python launchers/replay_batch.py --workdir RUN FILE [FILE ...].

A run that meets a loss or gradient that is not finite saves the batches of that step in RUN/not_finite.
Printed are the weights that are used, and per batch its images, each loss, and whether the gradients are
finite. Where all is, the batch alone is not the cause: the weights had moved on since the checkpoint, and a
lower learning rate or stronger clipping is the remedy.
"""

import argparse
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, load_plugins


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="batches of RUN/not_finite")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--checkpoint", help="a checkpoint's name, or last (default: the final weights, else last)"
    )
    add_plugin_option(parser)
    arguments = parser.parse_args()
    from ufo_large.runs.folder import RunFolder
    from ufo_large.train.saved_batch import replay

    try:
        load_plugins(arguments.plugin)
        for line in replay(RunFolder(arguments.workdir), arguments.files, arguments.checkpoint):
            print(line)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
