"""Predict a few evenly spread images of a split and join them with image and truth, for report and wandb."""

from ufo_large.evaluation.evaluator import Evaluator, Predictor
from ufo_large.evaluation.shown_rows import ShownRows
from ufo_large.kinds import PredictionExample
from ufo_large.media.decode import decode_image
from ufo_large.structures import TaskInfo

PER_TASK = 12


def predict_examples(
    evaluator: Evaluator, model: Predictor, per_task: int = PER_TASK
) -> list[PredictionExample]:
    """Return up to `per_task` examples of every task that has the evaluator's split.

    Every caller predicts the same images, so one process is enough; a model whose parameters are sharded
    needs the call on all ranks.
    """
    return [e for info in evaluator.tasks for e in _of_task(evaluator, model, info, per_task)]


def _of_task(
    evaluator: Evaluator, model: Predictor, info: TaskInfo, per_task: int
) -> list[PredictionExample]:
    reader = evaluator.shards.split(info.name, evaluator.split)
    shown = ShownRows.spread(reader, per_task)
    return [
        PredictionExample(
            info=info,
            image_HW3=decode_image(
                (raw := reader.read(row)).image, size=(raw.sample.height, raw.sample.width)
            ),
            prediction=prediction,
            truth=reader.truth(row) if reader.labeled else None,
        )
        for row, prediction in zip(shown.rows, evaluator.predictions(model, info, shown), strict=True)
    ]
