"""Depth estimation: the distance of every pixel along the optical axis, in metres."""

from dataclasses import dataclass

from torch import Tensor

from ufo_large.structures import SampleInfo


@dataclass(slots=True)
class DepthTargets:
    """`depth_BHW`: float32 metres of the padded input; 0 where depth is missing, also in the padding."""

    depth_BHW: Tensor


@dataclass(slots=True)
class DepthPrediction:
    """`depth_HW`: float32 metres of every pixel of the stored image, on the CPU."""

    sample: SampleInfo
    depth_HW: Tensor
