"""The options of scripts that show a trained model pictures in another way than its run says."""

import argparse

VIEW_OPTIONS = ("flip", "scales", "fusion", "set")


def add_view_options(parser: argparse.ArgumentParser, when: str = "") -> None:
    """Give a script `--flip`, `--scales`, `--fusion` and `--set`; `when` says where they hold."""
    parser.add_argument("--flip", action="store_true", help=f"{when}predict mirrored images as well")
    parser.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="S",
        help=f"{when}predict inputs of each of these sizes, such as 0.75 1 1.25",
    )
    parser.add_argument(
        "--fusion",
        metavar="nms|wbf",
        help="with --flip or --scales: join boxes by suppression (default) or weighted box fusion",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="tasks.b=value", help=f"{when}change a task's feed"
    )


def chosen_view_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[str]:
    """Return those of the options that were given, as `--flip`."""
    return [f"--{n}" for n in VIEW_OPTIONS if getattr(arguments, n) != parser.get_default(n)]
