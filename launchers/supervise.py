"""Keep a run going: supervise.py deepspeed --num_gpus 8 launchers/train.py ... --workdir RUN --resume auto

A run that crashes, hangs or loses a rank starts again from its last whole checkpoint, after a pause that
doubles. Refused settings (code 2), a finished run and a signal to this process end it. SIGTERM goes on to the
ranks, which save; the code is then 75, as with restartable.py.
"""

import argparse
import sys

from ufo_large.processes.supervising import Policy, supervise


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--restarts", type=int, default=5, metavar="N", help="in a row without a new checkpoint (5)"
    )
    parser.add_argument(
        "--backoff", type=float, default=10.0, metavar="S", help="first pause in seconds (10)"
    )
    parser.add_argument(
        "--min-ranks",
        type=int,
        metavar="N",
        help="from the second restart without progress on, one rank of this machine less, down to N",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the launcher and its arguments")
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("give the launcher's command, as deepspeed --num_gpus 8 launchers/train.py ...")
    try:
        policy = Policy(restarts=arguments.restarts, backoff=arguments.backoff, min_ranks=arguments.min_ranks)
        sys.exit(supervise(command, policy))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
