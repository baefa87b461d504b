"""Evaluate a finished run: predict on all ranks, write the submission, score it beside the baselines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ufo_large.config import Problems, write_json
from ufo_large.data.shard_index import SPLITS
from ufo_large.data.shards import ShardSet
from ufo_large.distributed import comm
from ufo_large.distributed.checkpoint import load_weights
from ufo_large.evaluation.baselines import trivial_baselines
from ufo_large.evaluation.evaluator import Evaluator, Predictor
from ufo_large.evaluation.ground_truth import truth_of_shards
from ufo_large.evaluation.score import score_answers
from ufo_large.evaluation.submission import write_submission
from ufo_large.evaluation.submission_reader import read_submission
from ufo_large.kinds.protocols import get_protocol
from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.weights import fill
from ufo_large.structures import TaskInfo

SUBMISSION_FILE = "submission.json"
UNSCORED_FILE = "submission_unscored.json"
METRICS_FILE = "metrics.json"


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
        told = f"{shards.root}: no task that the model knows has a split {evaluator.split!r}"
        raise ValueError(f"{told}; give --split {' or '.join(there)}")
    entries = evaluator.submission_entries(model)

    def written() -> dict[str, Any] | None:
        if not comm.is_main():
            return None
        folder.mkdir(parents=True, exist_ok=True)
        write_submission(folder / UNSCORED_FILE, entries)
        result = _scored(evaluator, folder / UNSCORED_FILE, chosen)
        if result is not None:
            write_json(folder / METRICS_FILE, result, allow_nan=False)
        (folder / UNSCORED_FILE).replace(folder / SUBMISSION_FILE)
        return result

    return comm.agreed(written)


def load_model(
    config: MultitaskModel.Config, tasks: tuple[TaskInfo, ...], weights: Path, device: torch.device
) -> MultitaskModel:
    """Build the model and fill it with consolidated weights; ValueError lists whatever does not fit."""
    model, tensors = config.build(tasks), {}
    load_weights(weights, tensors.__setitem__)
    try:
        fill(model, tensors.items())
    except ValueError as error:
        raise ValueError(f"{weights} belongs to another model than config.json beside it: {error}") from None
    return model.to(device)


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
    problems = Problems(f"shards {shards.root} and the trained model")
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


def _scored(evaluator: Evaluator, submission: Path, protocol: Any) -> dict[str, Any] | None:
    if not any(evaluator.shards.split(info.name, evaluator.split).labeled for info in evaluator.tasks):
        return None
    known = {info.name for info in evaluator.tasks}
    truths = {n: t for n, t in truth_of_shards(evaluator.shards, evaluator.split).items() if n in known}
    scores = score_answers(read_submission(submission, truths), truths, protocol)
    details = scores.pop("details")
    baselines = trivial_baselines(evaluator.shards, truths, protocol)
    return {**scores, "split": evaluator.split, "baselines": baselines, "details": details}
