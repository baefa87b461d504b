"""From class scores of the padded input to the label of every pixel of the stored image.

Legend: K classes, H W height and width.
"""

import torch
from torch import Tensor

from ufo_large.structures import IGNORE_INDEX, MaskPrediction, TaskBatch, TaskInfo
from ufo_large.tasks.stored_size import at_stored_size


def mask_predictions(scores_BKHW: Tensor, stride: int, batch: TaskBatch) -> list[MaskPrediction]:
    """Return the best class of every pixel of each stored image, from scores at `stride`.

    Scores, not labels, are resized, so edges fall between pixels where the scores say so.
    """
    return [
        MaskPrediction(sample=sample, mask_HW=scores_KHW.argmax(dim=0).to(torch.uint8).cpu())
        for sample, scores_KHW in at_stored_size(scores_BKHW, stride, batch)
    ]


def check_label_range(info: TaskInfo) -> None:
    """Raise ValueError where the classes do not fit uint8 masks beside the ignore value."""
    if info.num_classes > IGNORE_INDEX:
        raise ValueError(f"task {info.name!r}: {info.num_classes} classes, but masks hold labels 0 to 254")
