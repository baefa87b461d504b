"""From class scores of the padded input to the label of every pixel of the stored image.

Legend: K classes, H W height and width.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ufo_large.structures import IGNORE_INDEX, MaskPrediction, TaskBatch, TaskInfo
from ufo_large.tasks.pyramid_fusion import enlarge
from ufo_large.tasks.stored_size import when_called


def mask_predictions(
    scores_BKHW: Tensor, stride: float, batch: TaskBatch, are_logits: bool = False
) -> list[MaskPrediction]:
    """Return the best class of every pixel of each stored image, from scores at `stride`.

    Scores, not labels, are resized, so edges fall between pixels where the scores say so. What several views
    of an image average are the resized scores, of logits the probabilities.
    """
    found = []
    for sample, at_size in when_called(scores_BKHW, stride, batch):
        mask_HW = at_size().argmax(dim=0).to(torch.uint8).cpu()
        scores = partial(_probabilities, at_size) if are_logits else at_size
        found.append(MaskPrediction(sample, mask_HW, scores if batch.keep_scores else None))
    return found


def input_labels(scores_BKHW: Tensor, stride: float, batch: TaskBatch) -> dict[str, Tensor]:
    """Return `labels`, int64 [B, H, W]: the best class of every pixel of the input."""
    height, width = batch.images_BCHW.shape[-2:]
    return {"labels": enlarge(scores_BKHW.float(), stride)[..., :height, :width].argmax(1)}


def _probabilities(logits: Callable[[], Tensor]) -> Tensor:
    return logits().softmax(dim=0)


def check_label_range(info: TaskInfo) -> None:
    """Raise ValueError where the classes do not fit uint8 masks beside the ignore value."""
    if info.num_classes > IGNORE_INDEX:
        raise ValueError(f"task {info.name!r}: {info.num_classes} classes, but masks hold labels 0 to 254")
