"""From class scores of the padded input to the label of every pixel of the stored image.

Legend: K classes, H W height and width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ufo_large.structures import IGNORE_INDEX, MaskPrediction, TaskBatch, TaskInfo
from ufo_large.tasks.pyramid_fusion import enlarge


def mask_predictions(scores_BKHW: Tensor, stride: int, batch: TaskBatch) -> list[MaskPrediction]:
    """Return the best class of every pixel of each stored image, from scores at `stride`.

    Scores, not labels, are resized, so edges fall between pixels where the scores say so. One image
    at a time: at the stored size the scores of a whole batch could be gigabytes.
    """
    predictions = []
    for scores_KHW, (height, width), sample in zip(
        scores_BKHW.float(), batch.sizes_B2.tolist(), batch.samples, strict=True
    ):
        scores_1KHW = enlarge(scores_KHW[None], stride)[..., :height, :width]
        stored_size = (sample.height, sample.width)
        scores_1KHW = F.interpolate(scores_1KHW, size=stored_size, mode="bilinear", align_corners=False)
        mask_HW = scores_1KHW[0].argmax(dim=0).to(torch.uint8).cpu()
        predictions.append(MaskPrediction(sample=sample, mask_HW=mask_HW))
    return predictions


def check_label_range(info: TaskInfo) -> None:
    """Raise ValueError where the classes do not fit uint8 masks beside the ignore value."""
    if info.num_classes > IGNORE_INDEX:
        raise ValueError(f"task {info.name!r}: {info.num_classes} classes, but masks hold labels 0 to 254")
