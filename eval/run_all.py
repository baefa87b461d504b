"""Score a submission file, or predict with a finished run and score that. The last line printed is JSON.

    python eval/run_all.py --submission FILE --data TESTROOT
    python eval/run_all.py --workdir RUN --data SHARDS
    deepspeed --num_gpus 8 eval/run_all.py --workdir RUN --data SHARDS

The second form writes submission.json, metrics.json, examples/ and report.html. For the test split of the
shards that the run was trained on they go into RUN, for any other into a folder of their own,
RUN/evaluations/<split> or RUN/evaluations/<shards>-<fingerprint>[-<split>], and replace no other results.
So do results with the options that follow; the folder's name says which. `--flip` and `--scales` also predict
mirrored images and inputs of other sizes, and join the predictions, for each task that can have that. `--set`
changes how one task is fed at test time, such as tiles for large images:

    --flip --scales 0.75 1 1.25 --set tasks.detection.loader.views.flip=false
    --set tasks.detection.loader.tiles.rows=2 --set tasks.detection.loader.tiles.columns=3
"""

import argparse
import os
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, add_view_options, chosen_view_options, load_plugins
from ufo_large.data.errors import DataError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--submission", type=Path, metavar="FILE", help="score this file")
    what.add_argument("--workdir", type=Path, metavar="RUN", help="predict with this run's model and score")
    parser.add_argument(
        "--data",
        required=True,
        help="with --submission: a root of the split in the contest's layout, or the folder that holds it; "
        "with --workdir: the shards",
    )
    parser.add_argument(
        "--protocol",
        help="official (as the contest's scorer) or standard; default: official for data with the "
        "contest's 19 classes of streets, standard for any other",
    )
    add_view_options(parser, when="with --workdir: ")
    parser.add_argument(
        "--checkpoint", metavar="last|DIR", help="with --workdir: a checkpoint's weights, not the final ones"
    )
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="with --workdir: compute in bfloat16, not float32; faster where the processor or GPU has it",
    )
    parser.add_argument("--split", default="test", help="the split to score, and with --workdir to predict")
    add_plugin_option(parser)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    given = chosen_view_options(parser, args)
    given += [f"--{name}" for name in ("checkpoint", "bfloat16") if getattr(args, name)]
    if args.submission and given:
        parser.error(f"{', '.join(given)}: of a model; a submission is scored as it is")
    return args


def evaluated(args: argparse.Namespace) -> dict | None:
    """Predict with a run on all ranks; the result is rank 0's."""
    from ufo_large.data.views import Views
    from ufo_large.distributed import comm
    from ufo_large.evaluation.run import SUBMISSION_FILE, evaluate
    from ufo_large.processes.launcher import LAUNCHER

    LAUNCHER.start()
    done = evaluate(
        args.workdir,
        args.data,
        split=args.split,
        protocol=args.protocol,
        views=Views(flip=args.flip, scales=tuple(args.scales), fusion=args.fusion),
        assignments=args.set,
        checkpoint=args.checkpoint,
        bfloat16=args.bfloat16,
    )
    if comm.is_main():
        if done.not_trained:
            print(f"not evaluated, since it was not trained: {', '.join(done.not_trained)}")
        if done.result is None:
            print(f"{done.folder / SUBMISSION_FILE}: written; there is no ground truth to score it")
        print(f"report: {done.folder / 'report.html'}")
    return done.result


def show(result: dict, is_chosen: bool) -> None:
    """Print the figures; `is_chosen`: say why they are counted by this protocol."""
    from rich.console import Console

    from ufo_large.evaluation.protocol_choice import reason
    from ufo_large.evaluation.table import result_line, results_table, warnings_of

    console = Console()
    if is_chosen:
        console.print(reason(result["protocol"]), highlight=False)
    console.print(results_table(result))
    for warning in warnings_of(result):
        console.print(warning, highlight=False)
    print(result_line(result), flush=True)


def main() -> None:
    args = parse()
    try:
        load_plugins(args.plugin)
        if args.submission:
            from ufo_large.evaluation.score import score_submission

            result = score_submission(args.submission, args.data, args.protocol, args.split)
        else:
            result = evaluated(args)
        if result is not None:
            show(result, is_chosen=args.protocol is None)
    except DataError as error:  # perhaps of one rank alone
        sys.exit(f"error: {error}")
    except ValueError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
