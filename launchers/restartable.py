"""Run a launcher where machines are taken away: restartable.py deepspeed --num_gpus 8 launchers/train.py ...

SIGTERM goes on to the ranks alone, which save and leave with code 75 (EX_TEMPFAIL). DeepSpeed 0.19.8 does not
pass it on so: `deepspeed` dies of it and leaves the ranks behind; the process between it and the ranks gives
each 30 seconds and ends with code 1, whatever theirs is. One machine: on several, run this on each.
"""

import sys

from ufo_large.train.launching import launch


def main() -> None:
    if sys.argv[1:2] in ([], ["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] else 2)
    sys.exit(launch(sys.argv[1:]).code)


if __name__ == "__main__":
    main()
