"""What a head says about one image, in that image's own pixels and the model's labels.

Legend: K classes, N boxes, H W the stored image's own height and width.
"""

from dataclasses import dataclass

from torch import Tensor

from ufo_large.structures.batch import SampleInfo


@dataclass(slots=True)
class ClassPrediction:
    """`scores_K`: probability a class, float32 on CPU."""

    sample: SampleInfo
    scores_K: Tensor

    @property
    def label(self) -> int:
        return int(self.scores_K.argmax())


@dataclass(slots=True)
class BoxPrediction:
    """Boxes in pixels of the stored image, best score first; `labels_N` are model labels (0-based)."""

    sample: SampleInfo
    boxes_xyxy_N4: Tensor
    scores_N: Tensor
    labels_N: Tensor


@dataclass(slots=True)
class MaskPrediction:
    """`mask_HW`: uint8 model label of every pixel of the stored image."""

    sample: SampleInfo
    mask_HW: Tensor


Prediction = ClassPrediction | BoxPrediction | MaskPrediction
