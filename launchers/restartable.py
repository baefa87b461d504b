"""Run a launcher where machines are taken away: restartable.py deepspeed --num_gpus 8 launchers/train.py ...

SIGTERM, SIGUSR1, SIGUSR2 and SIGINT go on to the ranks alone, which save and leave with code 75
(EX_TEMPFAIL); a second SIGINT ends everything at once. DeepSpeed 0.19.8 does not pass them on so:
`deepspeed` dies of them, and the process between it and the ranks gives each 30 seconds and ends with
code 1, whatever theirs is. One machine: on several, run this on each.
"""

import sys

from ufo_large.processes.launching import launch


def main() -> None:
    if sys.argv[1:2] in ([], ["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] else 2)
    try:
        sys.exit(launch(sys.argv[1:]).code)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
