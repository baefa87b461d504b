"""Score answers against the truth: every task's metrics, the headline of each kind, and their mean."""

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from ufo_large.evaluation.ground_truth import GroundTruth, truth_of_folder
from ufo_large.evaluation.protocol_choice import protocol_for
from ufo_large.evaluation.submission_reader import read_submission
from ufo_large.kinds import KINDS, kind_of
from ufo_large.kinds.protocols import Protocol, get_protocol
from ufo_large.kinds.review import Review
from ufo_large.metrics import Metric
from ufo_large.structures import TaskInfo


def score_submission(
    file: str | Path, test_root: str | Path, protocol: str | None = None, split: str = "test"
) -> dict[str, Any]:
    """Score a submission file against the ground truth in a root of the contest's layout.

    `protocol` None: as `protocol_for` chooses. Returns what `score_metrics` returns. Raises ValueError
    listing all that is wrong with either.
    """
    truths = truth_of_folder(test_root, split=split)
    chosen = get_protocol(protocol or protocol_for(truth.info for truth in truths.values()))
    return score_answers(read_submission(file, truths), truths, chosen)


def score_answers(
    answers: Mapping[str, list[Any]], truths: Mapping[str, GroundTruth], protocol: Protocol
) -> dict[str, Any]:
    """Score every task of `truths`; `answers[task][i]` is for its image i. See `score_metrics`."""
    metrics = {task: answers_metric(answers[task], truth, protocol) for task, truth in truths.items()}
    return score_metrics(metrics, truths, protocol)


def answers_metric(
    answers: list[Any],
    truth: GroundTruth,
    protocol: Protocol,
    review: Review | None = None,
    confidences: Sequence[float | None] = (),
) -> Metric:
    """Return the metric of one task, fed with the answers of a submission.

    `review`, where given, sees them too, with the confidence of each image.
    """
    kind = kind_of(truth.info)
    metric = kind.metric(truth.info, protocol)
    for i, answer in enumerate(answers):
        true = truth.read(i)
        said = kind.answered(answer, truth.info, true, protocol)
        kind.count(metric, i, said, true)
        if review is not None:
            review.add(i, said, true, confidences[i])
    return metric


def score_metrics(
    metrics: Mapping[str, Metric], truths: Mapping[str, GroundTruth], protocol: Protocol
) -> dict[str, Any]:
    """Return the figures of metrics that were fed with every image.

    They are the headline of each kind that is there (the mean where it has several tasks), `score` (the mean
    of those, each as a share of 1 where more is better), `protocol`, `tasks` (each one's own headline),
    `images` by task, and `details`:
    `<task>/<metric>` with every class's figure, None where no image can say. Raises ValueError for a task of
    which nothing can be counted.
    """
    details: dict[str, float | None] = {}
    headlines: dict[str, float] = {}
    for task, truth in truths.items():
        values, kind = metrics[task].compute(), kind_of(truth.info)
        if isnan(values[kind.headline.name]):
            raise ValueError(f"{task}: {kind.empty}")
        details |= {f"{task}/{name}": None if isnan(value) else value for name, value in values.items()}
        headlines[task] = values[kind.headline.name]
    return summary({task: truth.info for task, truth in truths.items()}, headlines, protocol.name) | {
        "tasks": {t: {kind_of(truth.info).headline.name: headlines[t]} for t, truth in truths.items()},
        "images": {task: len(truth) for task, truth in truths.items()},
        "details": details,
    }


def summary(infos: Mapping[str, TaskInfo], headlines: Mapping[str, float], protocol: str) -> dict[str, Any]:
    """Return the headline figure of each kind, their mean and the protocol, from each task's figure."""
    figures: dict[str, float] = {}
    shares: list[float] = []
    for kind in KINDS.values():
        own = [value for task, value in headlines.items() if infos[task].kind == kind.name]
        if own:
            figures[kind.headline.name] = mean(own)
            shares.append(kind.headline.share(figures[kind.headline.name]))
    return {**figures, "score": mean(shares) if shares else None, "protocol": protocol}


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
