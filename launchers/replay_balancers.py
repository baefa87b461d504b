"""Which balancing methods do the same on a run? python launchers/replay_balancers.py --workdir RUN

Every method turns the tasks' losses or the inner products of their gradients into a weight a task, and the
run's log has both for each step. This shows all steps to every method and compares the gradients that they
combine. Nothing is trained: it takes seconds, and methods of one group need no run each in a comparison.

Printed: the groups, and a line a method with its cosine to the plain sum and each task's share of the update.
RUN/balancers.md keeps them, RUN/balancers.svg shows them.

The gradients are those of the path that the run took: what a method would have met later on a path of its own
is not known from it. Compared are directions; with clipping, which most steps of a ViT meet, they are all
that is left of a step. Of a run with log_every above 1 the logged steps are shown.
"""

import argparse
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, load_plugins


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True, metavar="RUN", help="folder of a joint run")
    parser.add_argument("--balancers", nargs="+", metavar="NAME", help="(all)")
    parser.add_argument("--alike", type=float, default=0.99, metavar="COSINE", help="of a group (0.99)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="(RUN)")
    add_plugin_option(parser)
    arguments = parser.parse_args()
    from ufo_large.comparing.replay_report import replay_run

    try:
        load_plugins(arguments.plugin)
        print(replay_run(arguments.workdir, arguments.balancers, arguments.alike, arguments.out))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
