"""Evaluate a finished run: predict on all ranks, write the submission, score it beside the baselines."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ufo_large.config import Problems
from ufo_large.data.shard_index import SPLITS
from ufo_large.data.shards import ShardSet
from ufo_large.distributed import comm
from ufo_large.distributed.checkpoint import load_weights
from ufo_large.evaluation.baselines import trivial_baselines
from ufo_large.evaluation.evaluator import Evaluator, Predictor
from ufo_large.evaluation.ground_truth import truth_of_shards
from ufo_large.evaluation.protocols import get_protocol
from ufo_large.evaluation.score import score_answers
from ufo_large.evaluation.submission import write_submission
from ufo_large.evaluation.submission_reader import read_submission
from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.weights import fill
from ufo_large.structures import TaskInfo

SUBMISSION_FILE = "submission.json"
METRICS_FILE = "metrics.json"


def evaluate_run(
    evaluator: Evaluator, model: Predictor, workdir: Path, protocol: str = "official"
) -> dict[str, Any] | None:
    """Write WORKDIR/submission.json and WORKDIR/metrics.json; return the latter on rank 0, None elsewhere.

    Call it on all ranks. What is scored is the file just written, read back, so that the figures are those
    that the file gets anywhere else. Of another split than test the former is submission_<split>.json. A
    split without any ground truth gives the submission alone, and figures of an earlier scoring go.
    """
    chosen, shards = get_protocol(protocol), evaluator.shards
    if not evaluator.tasks:
        there = [split for split in SPLITS if replace(evaluator, split=split).tasks]
        told = f"{shards.root}: no task that the model knows has a split {evaluator.split!r}"
        raise ValueError(f"{told}; give --split {' or '.join(there)}")
    entries = evaluator.submission_entries(model)
    result, error = None, None
    if comm.is_main():
        try:
            submission = workdir / submission_name(evaluator.split)
            (workdir / METRICS_FILE).unlink(missing_ok=True)
            write_submission(submission, entries)
            result = _scored(evaluator, submission, chosen)
            if result is not None:
                _write_json(workdir / METRICS_FILE, result)
        except Exception as problem:
            error = problem
    comm.raise_together(error)
    return result


def submission_name(split: str) -> str:
    """Return the file's name: another split's never replaces what is handed in."""
    return SUBMISSION_FILE if split == "test" else f"submission_{split}.json"


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


def _write_json(file: Path, value: Any) -> None:
    unfinished = file.with_name(file.name + ".part")
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, file)
