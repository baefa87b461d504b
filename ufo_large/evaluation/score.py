"""Score answers against the truth: top-1, mAP50, mIoU and their mean."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from ufo_large.evaluation.ground_truth import GroundTruth, truth_of_folder
from ufo_large.kinds.protocols import Protocol, get_protocol
from ufo_large.evaluation.submission import Answer
from ufo_large.evaluation.submission_reader import read_submission
from ufo_large.metrics import Accuracy, FoundBoxes, MeanAveragePrecision, MeanIoU
from ufo_large.structures import IGNORE_INDEX, Kind, TaskInfo

HEADLINE: dict[Kind, str] = {"classification": "top1", "detection": "map50", "segmentation": "miou"}


def score_submission(
    file: str | Path, test_root: str | Path, protocol: str = "official", split: str = "test"
) -> dict[str, Any]:
    """Score a submission file against the ground truth in a root of the contest's layout.

    Returns what `score_answers` returns. Raises ValueError listing all that is wrong with either.
    """
    chosen = get_protocol(protocol)
    truths = truth_of_folder(test_root, split=split)
    return score_answers(read_submission(file, truths), truths, chosen)


def score_answers(
    answers: Mapping[str, list[Answer]], truths: Mapping[str, GroundTruth], protocol: Protocol
) -> dict[str, Any]:
    """Score every task of `truths`; `answers[task][i]` is for its image i.

    Returns `top1, map50, miou` (None for a kind that the test set has not; the mean where it has several
    tasks of one kind), `score` (the mean of those present), `protocol`, `images` by task, and `details`:
    `<task>/<metric>` with every class's figure, None where no image can say.
    """
    details: dict[str, float | None] = {}
    headlines: dict[str, list[float]] = {name: [] for name in HEADLINE.values()}
    for task, truth in truths.items():
        values = _SCORERS[truth.info.kind](answers[task], truth, protocol)
        details |= {f"{task}/{name}": None if isnan(value) else value for name, value in values.items()}
        headlines[HEADLINE[truth.info.kind]].append(values[HEADLINE[truth.info.kind]])
    return summary(headlines, protocol.name) | {
        "images": {task: len(truth) for task, truth in truths.items()},
        "details": details,
    }


def summary(headlines: Mapping[str, list[float]], protocol: str) -> dict[str, Any]:
    """Return the headline metrics, their mean and the protocol, from the tasks' figures of each metric."""
    figures = {name: float(np.mean(values)) if values else None for name, values in headlines.items()}
    present = [value for value in figures.values() if value is not None]
    return {**figures, "score": float(np.mean(present)) if present else None, "protocol": protocol}


def _score_classes(answers: list[Answer], truth: GroundTruth, protocol: Protocol) -> dict[str, float]:
    labels = {number: label for label, number in enumerate(truth.info.class_ids)}
    metric = Accuracy(truth.info.class_names)
    best = [labels.get(answer, -1) for answer in answers]
    metric.update_best(np.array(best), np.array([truth.read(i) for i in range(len(truth))]))
    return metric.compute()


def _score_boxes(answers: list[Answer], truth: GroundTruth, protocol: Protocol) -> dict[str, float]:
    """Boxes of a category that the test set does not list are left out, as COCO does, and counted."""
    metric, unlisted = MeanAveragePrecision(truth.info.class_names), 0
    for i, answer in enumerate(answers):
        found = _in_model_labels(answer, truth.info)
        unlisted += len(answer.labels_N) - len(found.labels_N)
        metric.update(i, found, truth.read(i))
    if not metric.num_true:
        raise ValueError(
            f"{truth.info.name}: the ground truth holds no box but crowds, so there is no mAP; check its JSON"
        )
    return metric.compute() | {"boxes_of_unlisted_category": unlisted}


def _in_model_labels(answer: FoundBoxes, info: TaskInfo) -> FoundBoxes:
    labels = {number: label for label, number in enumerate(info.class_ids)}
    labels_N = np.array([labels.get(number, -1) for number in answer.labels_N.tolist()], np.int64)
    listed = labels_N >= 0
    return FoundBoxes(
        boxes_xywh_N4=answer.boxes_xywh_N4[listed],
        scores_N=answer.scores_N[listed],
        labels_N=labels_N[listed],
    )


def _score_masks(answers: list[Answer], truth: GroundTruth, protocol: Protocol) -> dict[str, float]:
    if protocol.background not in (IGNORE_INDEX, *truth.info.class_ids):
        raise ValueError(
            f"{truth.info.name}: protocol {protocol.name!r} takes what no ring covers for class "
            f"{protocol.background}, which this data set has not; use --protocol standard"
        )
    labels = np.full(256, IGNORE_INDEX, np.uint8)
    labels[list(truth.info.class_ids)] = np.arange(truth.info.num_classes)
    metric = MeanIoU(truth.info.class_names, empty=protocol.empty_classes)
    for i, answer in enumerate(answers):
        truth_HW = truth.read(i)
        metric.update(labels[protocol.paint(answer, *truth_HW.shape)], truth_HW)
    values = metric.compute()
    if isnan(values["miou"]):
        raise ValueError(f"{truth.info.name}: every pixel of the true masks is 255 (ignore); check the masks")
    return values


_SCORERS = {"classification": _score_classes, "detection": _score_boxes, "segmentation": _score_masks}
