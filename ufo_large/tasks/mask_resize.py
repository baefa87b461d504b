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

MOST_SCORES = 1 << 27
"""Float32 scores at a stored image's size that are held at a time, half a gigabyte."""


def mask_predictions(
    scores_BKHW: Tensor, stride: float, batch: TaskBatch, are_logits: bool = False
) -> list[MaskPrediction]:
    """Return the best class of every pixel of each stored image, from scores at `stride`.

    Scores, not labels, are resized, so edges fall between pixels where the scores say so. What several views
    of an image average are the resized scores, of logits the probabilities.
    """
    found = []
    for sample, at_size in when_called(scores_BKHW, stride, batch):
        mask_HW = _best_class(at_size, scores_BKHW.shape[1], sample.height * sample.width).cpu()
        scores = partial(_probabilities, at_size) if are_logits else at_size
        found.append(MaskPrediction(sample, mask_HW, scores if batch.keep_scores else None))
    return found


def _best_class(at_size: Callable[[slice], Tensor], num_classes: int, pixels: int) -> Tensor:
    """Return the label of every pixel, uint8 [H, W], the first of equals, from a few classes at a time.

    A picture of 40 megapixels would take 160 MB a class.
    """
    step = max(1, MOST_SCORES // pixels)
    if step >= num_classes:
        return at_size(slice(None)).argmax(dim=0).to(torch.uint8)
    best_HW, label_HW = at_size(slice(0, step)).max(dim=0)
    label_HW = label_HW.to(torch.uint8)
    for start in range(step, num_classes, step):
        value_HW, found_HW = at_size(slice(start, start + step)).max(dim=0)
        is_better_HW = value_HW > best_HW
        label_HW = torch.where(is_better_HW, (found_HW + start).to(torch.uint8), label_HW)
        best_HW = torch.where(is_better_HW, value_HW, best_HW)
    return label_HW


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
