"""The contest's submission file: one JSON that answers for every test image.

    {"cls": [{"<image>": <class id>}, ...],
     "dec": [{"image_id": 1, "category_id": 37, "bbox": [x, y, w, h], "score": s}, ...],
     "seg": [{"<stem>.png": {"<class id>": [[[x, y], ...], ...], ...}}, ...]}

This is the form that the official scorer reads. `image_id` is the 1-based line in dec/test.txt (without
that file: the place in dec/test.json). A class of a mask is a flat list of rings, outer ones and holes, in
pixels of the image. The keys are the names of the tasks; the form follows from a task's kind.

Legend: N boxes of one image.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ufo_large.evaluation.ground_truth import mask_name
from ufo_large.kinds.polygons import Rings, mask_to_rings
from ufo_large.metrics import FoundBoxes
from ufo_large.structures import BoxPrediction, ClassPrediction, Prediction, TaskInfo

Answer = int | FoundBoxes | Rings
"""What a submission says of one image: a class id, boxes with category ids, or rings by class id."""


def entries_of(prediction: Prediction, info: TaskInfo) -> list[dict[str, Any]]:
    """Return a prediction's entries in the submission: one, or one a box."""
    sample, ids = prediction.sample, info.class_ids
    if isinstance(prediction, ClassPrediction):
        return [{sample.file_name: ids[prediction.label]}]
    if isinstance(prediction, BoxPrediction):
        return list(_box_entries(prediction, ids))
    label_rings = mask_to_rings(prediction.mask_HW.cpu().numpy())
    rings = {str(number): _as_lists(label_rings.get(label, [])) for label, number in enumerate(ids)}
    return [{mask_name(sample.file_name): rings}]


def write_submission(file: str | Path, entries: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write the file whole or not at all. Raises ValueError for a number that JSON does not have (nan)."""
    file = Path(file)
    unfinished = file.with_name(file.name + ".part")
    try:
        with unfinished.open("w", encoding="utf-8") as stream:
            json.dump(entries, stream, separators=(",", ":"), allow_nan=False)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def _box_entries(prediction: BoxPrediction, ids: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    boxes_xyxy_N4 = prediction.boxes_xyxy_N4.cpu().numpy()
    boxes_xywh_N4 = np.concatenate(
        [boxes_xyxy_N4[:, :2], boxes_xyxy_N4[:, 2:] - boxes_xyxy_N4[:, :2]], axis=1
    )
    rows = zip(boxes_xywh_N4, prediction.scores_N.cpu().numpy(), prediction.labels_N.tolist(), strict=True)
    for box, score, label in rows:
        yield {
            "image_id": prediction.sample.order + 1,
            "category_id": ids[label],
            "bbox": [_shortest(value) for value in box],
            "score": _shortest(score),
        }


def _shortest(value: np.floating) -> float:
    """The shortest decimal that reads back as the same float32."""
    return float(str(value))


def _as_lists(rings: list[np.ndarray]) -> list[list[list[int]]]:
    return [ring.tolist() for ring in rings]
