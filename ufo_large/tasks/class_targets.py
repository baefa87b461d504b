"""Class targets as probabilities, and class scores as predictions: what the classification heads share.

Legend: B images, K classes.
"""

import torch.nn.functional as F
from torch import Tensor

from ufo_large.structures import ClassPrediction, ClassTargets, TaskBatch


def class_probabilities(targets: ClassTargets, num_classes: int) -> Tensor:
    """Return float32 target probabilities [B, K]: those that MixUp or CutMix made, else one-hot."""
    if targets.soft_BK is not None:
        return targets.soft_BK.float()
    return F.one_hot(targets.labels_B, num_classes).float()


def class_predictions(logits_BK: Tensor, batch: TaskBatch) -> list[ClassPrediction]:
    """Return softmax scores, one prediction an image."""
    scores_BK = logits_BK.detach().float().softmax(dim=-1).cpu()
    return [
        ClassPrediction(sample=sample, scores_K=scores_K)
        for sample, scores_K in zip(batch.samples, scores_BK, strict=True)
    ]
