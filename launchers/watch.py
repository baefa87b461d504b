"""Watch a run while it trains: its report in a browser, which follows the run's files.

python launchers/watch.py --workdir RUN               then open http://127.0.0.1:8001/ on this machine
ssh -L 8001:localhost:8001 MACHINE                    from another one
"""

import argparse
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, load_plugins


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True, help="folder of a run, which may come later")
    parser.add_argument("--port", type=int, default=8001, help="0: any that is free (8001)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="another address lets everybody who reaches it read the run"
    )
    add_plugin_option(parser)
    arguments = parser.parse_args()
    from ufo_large.tracking.live_server import serve

    try:
        load_plugins(arguments.plugin)
        serve(arguments.workdir, arguments.host, arguments.port)
    except (ValueError, OSError, OverflowError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
