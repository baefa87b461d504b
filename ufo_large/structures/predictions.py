"""What a head says about one image, in that image's own pixels and the model's labels.

Legend: K classes, N boxes, H W the stored image's own height and width.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

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
    """`mask_HW`: uint8 model label of every pixel of the stored image.

    `scores`, where the batch asked for them, returns each class's score of every pixel, float32 [K, H, W]; a
    function, because the maps of a whole batch could be gigabytes.
    """

    sample: SampleInfo
    mask_HW: Tensor
    scores: Callable[[], Tensor] | None = None


class Prediction(Protocol):
    """What every kind's prediction has: the image it is about. The rest is its kind's own."""

    sample: SampleInfo


def on_cpu(prediction: Any) -> Any:
    """Return a prediction with its tensors on the CPU, floating ones as float32 (NumPy knows no bfloat16)."""
    values = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    tensors = {name: value.cpu() for name, value in values.items() if isinstance(value, Tensor)}
    floats = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    return replace(prediction, **floats)
