"""Evaluate a finished run: predict on all ranks, write the submission, score it beside the baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ufo_large.config import Problems, require_writable, write_json
from ufo_large.data.shard_index import SPLITS
from ufo_large.data.shards import ShardSet
from ufo_large.data.views import Views
from ufo_large.distributed import comm, zero
from ufo_large.evaluation.baselines import trivial_baselines
from ufo_large.evaluation.changed_feeds import for_all_tasks, name_of
from ufo_large.evaluation.evaluator import Evaluator, Predictor
from ufo_large.evaluation.examples import predict_examples
from ufo_large.evaluation.loading import find_checkpoint, load_run
from ufo_large.evaluation.protocol_choice import protocol_for
from ufo_large.evaluation.score import answers_metric, score_metrics
from ufo_large.evaluation.submission import write_submission
from ufo_large.evaluation.submission_reader import read_submission
from ufo_large.kinds.protocols import Protocol, get_protocol
from ufo_large.metrics import Metric
from ufo_large.runs.folder import RunFolder
from ufo_large.structures import TaskInfo
from ufo_large.tracking import write_report

SUBMISSION_FILE = "submission.json"
UNSCORED_FILE = "submission_unscored.json"
METRICS_FILE = "metrics.json"
PLAIN = Views()


def evaluate_run(
    evaluator: Evaluator, model: Predictor, folder: Path, protocol: str = "official"
) -> dict[str, Any] | None:
    """Write FOLDER/submission.json and FOLDER/metrics.json; return the latter on rank 0, None elsewhere.

    Call it on all ranks, with a folder for these shards and this split alone (`RunFolder.results`). What is
    scored is the file just written, read back, so that the figures are those that the file gets anywhere
    else. An earlier pair is replaced after that; where scoring fails, it stays, and the predictions are in
    submission_unscored.json. A split without any ground truth gives the submission alone.
    """
    chosen, shards = get_protocol(protocol), evaluator.shards
    if not evaluator.tasks:
        there = [split for split in SPLITS if replace(evaluator, split=split).tasks]
        told = f"{shards.name}: no task that the model knows has a split {evaluator.split!r}"
        raise ValueError(f"{told}; give --split {' or '.join(there)}")
    inputs = evaluator.inputs  # before any task is predicted, so that a misfit of the last costs no time
    entries, metrics = evaluator.gathered(model, chosen)

    def written() -> dict[str, Any] | None:
        if not comm.is_main():
            return None
        folder.mkdir(parents=True, exist_ok=True)
        write_submission(folder / UNSCORED_FILE, entries)
        result = _scored(evaluator, folder / UNSCORED_FILE, metrics, chosen)
        if result is not None:
            result["inputs"] = inputs
            write_json(folder / METRICS_FILE, result, allow_nan=False)
        (folder / UNSCORED_FILE).replace(folder / SUBMISSION_FILE)
        return result

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
    evaluator: Evaluator, submission: Path, metrics: Mapping[str, Metric], protocol: Protocol
) -> dict[str, Any] | None:
    """Score the submission's tasks by the file; `metrics` are those of tasks that it has no form for."""
    if not (truths := evaluator.truths):
        return None
    answered = {name: truth for name, truth in truths.items() if name not in metrics}
    answers = read_submission(submission, answered)
    found = {name: answers_metric(answers[name], truth, protocol) for name, truth in answered.items()}
    scores = score_metrics({**found, **metrics}, truths, protocol)
    details = scores.pop("details")
    baselines = trivial_baselines(evaluator.shards, truths, protocol)
    return {**scores, "split": evaluator.split, "baselines": baselines, "details": details}


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
) -> Evaluation:
    """Predict a split with a run on all ranks, score it and write the report.

    `protocol` None: as `protocol_for` chooses. `views`: for every task that can have them. `assignments`:
    changes of a task's feed, as `SavedRun.test_feeds` takes them, made after that. `checkpoint`: instead of
    the final weights; see `find_checkpoint`. Results with any of these get a folder of their own.
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
        shards=shards, loaders=loaders, split=split, only=known, patch=model.trunk.stride, device=device
    )
    folder = run.results(split, shards, saved.fingerprint)
    marks = [] if chosen is None else [chosen.name]
    marks += [] if loaders == saved.test_feeds() else [name_of(views, assignments)]
    if marks:
        begin = [] if folder == run.root else [folder.name]
        folder = run.root / "evaluations" / "-".join([*begin, *marks])
    protocol = protocol or protocol_for(evaluator.tasks)
    result = evaluate_run(evaluator, model, folder, protocol)
    if comm.is_main():
        write_report(workdir, predict_examples(evaluator, model), folder)
    left_out = tuple(task.name for task in shards.tasks if task.name not in known)
    return Evaluation(result=result, folder=folder, not_trained=left_out)
