"""Predict a few images of a split and join them with image and truth, for report and wandb."""

from collections.abc import Iterator, Mapping

from ufo_large.data.shards import SplitReader
from ufo_large.evaluation.evaluator import Evaluator, Predictor
from ufo_large.evaluation.reviewed import Reviewed
from ufo_large.evaluation.shown_rows import ShownRows
from ufo_large.kinds import PredictionExample
from ufo_large.kinds.review import SPREAD
from ufo_large.media.decode import decode_image
from ufo_large.structures import TaskInfo

PER_TASK = 12
NOTHING: Mapping[str, Reviewed] = {}


def predict_examples(
    evaluator: Evaluator,
    model: Predictor,
    per_task: int = PER_TASK,
    reviewed: Mapping[str, Reviewed] = NOTHING,
) -> list[PredictionExample]:
    """Return up to `per_task` evenly spread examples of every task that has the evaluator's split.

    Those of `reviewed` follow them. Every caller predicts the same images, so one process is enough; a model
    whose parameters are sharded needs the call on all ranks.
    """
    found = []
    for info in evaluator.tasks:
        found += _of_task(evaluator, model, info, per_task, reviewed.get(info.name, Reviewed()))
    return found


def _of_task(
    evaluator: Evaluator, model: Predictor, info: TaskInfo, per_task: int, reviewed: Reviewed
) -> Iterator[PredictionExample]:
    reader = evaluator.shards.split(info.name, evaluator.split)
    groups = {SPREAD: list(ShownRows.spread(reader, per_task).rows), **_rows(reader, reviewed)}
    shown = ShownRows(reader, tuple(dict.fromkeys(row for rows in groups.values() for row in rows)))
    predicted = dict(zip(shown.rows, evaluator.predictions(model, info, shown), strict=True))
    for group, rows in groups.items():
        for row in rows:
            raw = reader.read(row)
            yield PredictionExample(
                info=info,
                image_HW3=decode_image(raw.image, size=(raw.sample.height, raw.sample.width)),
                prediction=predicted[row],
                truth=reader.truth(row) if reader.labeled else None,
                group=group,
                shown_from=reviewed.shown_from,
            )


def _rows(reader: SplitReader, reviewed: Reviewed) -> dict[str, list[int]]:
    """Return the rows of image numbers, which count in official order."""
    wanted = {image for images in reviewed.images.values() for image in images}
    orders = ((reader.sample(row).order, row) for row in range(len(reader) if wanted else 0))
    row_of = {order: row for order, row in orders if order in wanted}
    return {group: [row_of[image] for image in images] for group, images in reviewed.images.items()}
