"""From class scores of the padded input to the label of every pixel of the stored image.

Legend: K classes, H W height and width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ufo_large.structures import IGNORE_INDEX, MaskPrediction, TaskBatch, TaskInfo


def mask_predictions(scores_BKHW: Tensor, batch: TaskBatch) -> list[MaskPrediction]:
    """Return the best class of every pixel of each stored image.

    Scores are resized to the padded input, the valid part is cut out and resized to the stored size.
    Scores, not labels, are resized, so edges fall between pixels where the scores say so. One image
    at a time: at the stored size the scores of a whole batch could be gigabytes.
    """
    padded_size = tuple(batch.images_BCHW.shape[-2:])
    predictions = []
    for scores_KHW, (height, width), sample in zip(
        scores_BKHW.float(), batch.sizes_B2.tolist(), batch.samples, strict=True
    ):
        scores_1KHW = _resize(scores_KHW[None], padded_size)[..., :height, :width]
        mask_HW = _resize(scores_1KHW, (sample.height, sample.width))[0].argmax(dim=0)
        predictions.append(MaskPrediction(sample=sample, mask_HW=mask_HW.to(torch.uint8).cpu()))
    return predictions


def _resize(scores_BKHW: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(scores_BKHW, size=size, mode="bilinear", align_corners=False)


def check_label_range(info: TaskInfo) -> None:
    """Raise ValueError where the classes do not fit uint8 masks beside the ignore value."""
    if info.num_classes > IGNORE_INDEX:
        raise ValueError(f"task {info.name!r}: {info.num_classes} classes, but masks hold labels 0 to 254")
