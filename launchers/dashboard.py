"""Make the wandb workspace for the runs of a project, with the charts that fit a run's tasks.

python launchers/dashboard.py --workdir RUN --entity TEAM            create it (needs `wandb login`)
python launchers/dashboard.py --workdir RUN --entity TEAM --out FILE write its JSON instead, offline
"""

import argparse
import importlib
import json
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True, help="folder of a run that has logged steps")
    parser.add_argument("--entity", required=True, help="wandb user or team")
    parser.add_argument(
        "--project", default="ufo-large", help="wandb project, as tracking.project of the run"
    )
    parser.add_argument("--out", type=Path, help="write the workspace's JSON here and send nothing")
    args = parser.parse_args()
    from ufo_large.tracking.dashboard import build_workspace, keys_of_run, specification

    try:
        workspace = build_workspace(keys_of_run(args.workdir), args.entity, args.project)
        if args.out:
            args.out.write_text(json.dumps(specification(workspace), indent=1), encoding="utf-8")
            print(args.out)
        else:
            print(workspace.save().url)
    except (ValueError, RuntimeError, OSError, wandb_error()) as error:
        sys.exit(f"error: {error}")


def wandb_error() -> type[Exception]:
    """Return what wandb raises, such as where nobody is logged in."""
    return importlib.import_module("wandb").Error


if __name__ == "__main__":
    main()
