"""Paint a small traffic world in the contest's layout: python data_sharding/make_synthetic.py --out DIR"""

import argparse
import math
import sys

from ufo_large.config import require_writable
from ufo_large.data.world_sizes import WorldSizes


def main() -> None:
    sizes = WorldSizes()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="a new folder; the same world is not painted twice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every count below")
    tasks = {
        "cls": "cars",
        "dec": "streets with signs",
        "seg": "streets with masks",
        "depth": "streets with depth, in OUT/depth",
    }
    for task, what in tasks.items():
        parser.add_argument(
            f"--{task}",
            nargs=3,
            type=int,
            default=getattr(sizes, task),
            metavar=("TRAIN", "VAL", "TEST"),
            help=f"how many {what} (default %(default)s)",
        )
    parser.add_argument(
        "--visibility",
        type=float,
        default=math.inf,
        help="fog: metres at which 2 %% of a contrast is left; up to four times as far, picture by picture",
    )
    parser.add_argument(
        "--light",
        type=float,
        default=1.0,
        help="dusk: the least share of daylight; up to 1, picture by picture",
    )
    args = parser.parse_args()
    from ufo_large.data.synthetic import write_world
    from ufo_large.data.weather import Weather

    wanted = WorldSizes(**{task: tuple(getattr(args, task)) for task in tasks}).scaled(args.scale)
    weather = Weather(visibility=args.visibility, light=args.light)
    require_writable(args.out, "--out")
    for root in write_world(args.out, args.seed, wanted, weather):
        print(root)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
