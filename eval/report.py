"""Write RUN/report.html from what training and evaluation left in RUN.

python eval/report.py --workdir RUN
"""

import argparse
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, load_plugins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="folder of a training run")
    add_plugin_option(parser)
    arguments = parser.parse_args()
    from ufo_large.tracking import write_report

    try:
        load_plugins(arguments.plugin)
        print(write_report(arguments.workdir))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
