"""Evaluate a finished run: predict on all ranks, write the submission, score it beside the baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ufo_large.config import Problems, require_writable, write_json
from ufo_large.data.shard_index import SPLITS
from ufo_large.data.shards import ShardSet
from ufo_large.data.views import PLAIN, Views
from ufo_large.distributed import comm, zero
from ufo_large.evaluation.baselines import trivial_baselines
from ufo_large.evaluation.changed_feeds import for_all_tasks, name_of
from ufo_large.evaluation.evaluator import Evaluator, Gathered, Predictor
from ufo_large.evaluation.examples import predict_examples
from ufo_large.evaluation.loading import find_checkpoint, load_run
from ufo_large.evaluation.protocol_choice import protocol_for
from ufo_large.evaluation.reviewed import Reviewed, write_figures
from ufo_large.evaluation.score import answers_metric, score_metrics
from ufo_large.evaluation.submission import write_submission
from ufo_large.evaluation.submission_reader import read_submission
from ufo_large.kinds import kind_of
from ufo_large.kinds.protocols import Protocol, get_protocol
from ufo_large.runs.folder import RunFolder
from ufo_large.structures import TaskInfo
from ufo_large.tracking import write_report

SUBMISSION_FILE = "submission.json"
UNSCORED_FILE = "submission_unscored.json"
METRICS_FILE = "metrics.json"
SPREAD_IMAGES = 8
WORTH_A_LOOK = 6


class Scored(NamedTuple):
    """`result`: what metrics.json holds; `reviewed`: the images of each task worth a look."""

    result: dict[str, Any]
    reviewed: dict[str, Reviewed]


def evaluate_run(
    evaluator: Evaluator, model: Predictor, folder: Path, protocol: str = "official"
) -> Scored | None:
    """Write FOLDER/submission.json, metrics.json and figures.json; return what was scored, on rank 0.

    Call it on all ranks, with a folder for these shards and this split alone (`RunFolder.results`). What is
    scored is the file just written, read back, so that the figures are those that the file gets anywhere
    else. Earlier files are replaced after that; where scoring fails, they stay, and the predictions are in
    submission_unscored.json. A split without any ground truth gives the submission alone, and None.
    """
    chosen, shards = get_protocol(protocol), evaluator.shards
    if not evaluator.tasks:
        there = [split for split in SPLITS if replace(evaluator, split=split).tasks]
        told = f"{shards.name}: no task that the model knows has a split {evaluator.split!r}"
        raise ValueError(f"{told}; give --split {' or '.join(there)}")
    inputs = evaluator.inputs  # before any task is predicted, so that a misfit of the last costs no time
    found = evaluator.gathered(model, chosen)

    def written() -> Scored | None:
        if not comm.is_main():
            return None
        folder.mkdir(parents=True, exist_ok=True)
        write_submission(folder / UNSCORED_FILE, found.entries)
        scored = _scored(evaluator, folder, found, chosen, inputs) if evaluator.truths else None
        (folder / UNSCORED_FILE).replace(folder / SUBMISSION_FILE)
        return scored

    return comm.agreed(written)


def known_tasks(trained: tuple[TaskInfo, ...], fingerprint: str, shards: ShardSet) -> tuple[str, ...]:
    """Return the tasks of the shards that a run knows; `fingerprint` is of the shards it was trained on.

    Of those, training left out tasks without a train split. Raises ValueError for any other task that the
    model was not trained for, class by class.
    """
    names = tuple(task.name for task in trained)
    if shards.fingerprint != fingerprint:
        check_tasks(trained, shards)
    return tuple(task.name for task in shards.tasks if task.name in names)


def check_tasks(trained: tuple[TaskInfo, ...], shards: ShardSet) -> None:
    """Raise ValueError unless every task of the shards is one the model was trained for, class by class."""
    problems = Problems(f"shards {shards.name} and the trained model")
    known = {task.name: task for task in trained}
    for task in shards.tasks:
        if task.name not in known:
            problems.add(f"the model has no task {task.name!r}, only {', '.join(known)}; give its own shards")
        elif task != known[task.name]:
            problems.add(
                f"task {task.name!r} has {task.num_classes} classes, in the model "
                f"{known[task.name].num_classes}, or other names or ids; "
                "make the shards with make_shards.py --like TRAINSHARDS"
            )
    problems.raise_if_any()


def _scored(
    evaluator: Evaluator, folder: Path, found: Gathered, protocol: Protocol, inputs: Mapping[str, str]
) -> Scored:
    """Score the submission's tasks by the file, and those that it has no form for; write what was found."""
    truths, metrics, reviews = evaluator.truths, {**found.metrics}, {**found.reviews}
    answered = {name: truth for name, truth in truths.items() if name not in metrics}
    answers = read_submission(folder / UNSCORED_FILE, answered)
    for name, truth in answered.items():
        reviews[name] = review = kind_of(truth.info).review(truth.info)
        confidences = found.confidences[name]
        metrics[name] = answers_metric(answers[name], truth, protocol, review, confidences)
    scores = score_metrics(metrics, truths, protocol)
    details = scores.pop("details")
    baselines = trivial_baselines(evaluator.shards, truths, protocol)
    told = {"split": evaluator.split, "baselines": baselines, "details": details, "inputs": inputs}
    scored = Scored(
        {**scores, **told}, {n: Reviewed.of(reviews[n], metrics[n], WORTH_A_LOOK) for n in truths}
    )
    write_figures(folder, {name: reviews[name] for name in truths}, metrics)
    write_json(folder / METRICS_FILE, scored.result, allow_nan=False)
    return scored


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What `evaluate` did: figures on rank 0 (None elsewhere or without ground truth), and their folder."""

    result: dict[str, Any] | None
    folder: Path
    not_trained: tuple[str, ...]


def evaluate(
    workdir: Path,
    data: str,
    *,
    split: str,
    protocol: str | None,
    views: Views = PLAIN,
    assignments: Sequence[str] = (),
    checkpoint: str | None = None,
    bfloat16: bool = False,
) -> Evaluation:
    """Predict a split with a run on all ranks, score it and write the report.

    `protocol` None: as `protocol_for` chooses. `views`: for every task that can have them. `assignments`:
    changes of a task's feed, as `SavedRun.test_feeds` takes them, made after that. `checkpoint`: instead of
    the final weights; see `find_checkpoint`. `bfloat16`: see `Evaluator`. Results with any of these get a
    folder of their own.
    """
    device = zero.init_distributed()
    run = RunFolder(workdir)
    comm.agreed(lambda: require_writable(workdir, "--workdir"))
    shards, saved = comm.agreed(lambda: (ShardSet.open(data), run.read()))
    known = known_tasks(saved.tasks, saved.fingerprint, shards)
    chosen = comm.agreed(lambda: find_checkpoint(run, checkpoint) if checkpoint else None)
    model = comm.agreed(lambda: load_run(run, saved, device, chosen))
    loaders = saved.test_feeds([*for_all_tasks(saved, views), *assignments])
    evaluator = Evaluator(
        shards=shards,
        loaders=loaders,
        split=split,
        only=known,
        patch=model.trunk.stride,
        device=device,
        bfloat16=bfloat16,
    )
    folder = run.results(split, shards, saved.fingerprint)
    marks = [] if chosen is None else [chosen.name]
    marks += [] if loaders == saved.test_feeds() else [name_of(views, assignments)]
    marks += ["bfloat16"] if bfloat16 else []
    if marks:
        begin = [] if folder == run.root else [folder.name]
        folder = run.root / "evaluations" / "-".join([*begin, *marks])
    protocol = protocol or protocol_for(evaluator.tasks)
    scored = evaluate_run(evaluator, model, folder, protocol)
    if comm.is_main():
        reviewed = {} if scored is None else scored.reviewed
        write_report(workdir, predict_examples(evaluator, model, SPREAD_IMAGES, reviewed), folder)
    left_out = tuple(task.name for task in shards.tasks if task.name not in known)
    return Evaluation(result=scored and scored.result, folder=folder, not_trained=left_out)
