"""Choose which predictions of an evaluation to keep for the report, and join them with image and truth."""

from collections.abc import Iterable

import numpy as np

from ufo_large.data.decode import decode_image, decode_mask
from ufo_large.data.shards import RawSample, ShardSet
from ufo_large.metrics import TrueBoxes
from ufo_large.structures import Prediction, TaskInfo
from ufo_large.tracking.examples import PredictionExample

PER_TASK = 12


def is_shown(order: int, count: int, per_task: int = PER_TASK) -> bool:
    """Tell whether image `order` of a split of `count` is among the `per_task` evenly spread ones."""
    shown = min(per_task, count)
    return any(order == int((i + 0.5) * count / shown) for i in range(shown))


def examples_from_shards(
    shards: ShardSet, split: str, predictions: Iterable[tuple[str, Prediction]]
) -> list[PredictionExample]:
    """Return an example for each (task, prediction), with the image and the truth as the shards hold them."""
    readers, rows = {}, {}
    examples = []
    for task, prediction in predictions:
        if task not in readers:
            reader = readers[task] = shards.split(task, split)
            rows[task] = {reader.sample(row).order: row for row in range(len(reader))}
        raw = readers[task].read(rows[task][prediction.sample.order])
        info = shards.task(task)
        truth = truth_of(raw, info) if raw.labeled else None
        image_HW3 = decode_image(raw.image)
        examples.append(PredictionExample(info=info, image_HW3=image_HW3, prediction=prediction, truth=truth))
    return examples


def truth_of(raw: RawSample, info: TaskInfo) -> int | TrueBoxes | np.ndarray:
    """Return the truth of a labelled sample: its class, its boxes (crowds left out), or its mask."""
    if info.kind == "classification":
        return int(raw.labels[0])
    if info.kind == "segmentation":
        return decode_mask(raw.mask)
    boxes_xywh = raw.boxes_xyxy[~raw.crowds].astype(np.float64)
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    return TrueBoxes(boxes_xywh_G4=boxes_xywh, labels_G=raw.labels[~raw.crowds])
