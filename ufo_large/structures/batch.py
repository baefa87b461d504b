"""One micro-batch of one task, from the loader to the loss.

Legend: B images, C channels, H W padded height and width, N boxes of the whole batch, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleInfo:
    """Where an image came from; enough to write its line of a submission.

    `height, width`: the stored image's own size in pixels. `image_id`: the id of the image in the
    user's ground truth (COCO image id; 1-based position elsewhere). `order`: 0-based position in
    its split's official order.
    """

    key: str
    file_name: str
    height: int
    width: int
    image_id: int
    order: int


@dataclass(slots=True)
class ClassTargets:
    """`labels_B`: int64 in 0..K-1. `soft_BK`: class probabilities when MixUp or CutMix mixed the batch."""

    labels_B: Tensor
    soft_BK: Tensor | None = None


@dataclass(slots=True)
class BoxTargets:
    """Boxes of all images in one list: float32 pixels of the network's input; `image_index_N` in 0..B-1."""

    boxes_xyxy_N4: Tensor
    labels_N: Tensor
    image_index_N: Tensor

    def of_image(self, index: int) -> tuple[Tensor, Tensor]:
        """Return (boxes_xyxy [n, 4], labels [n]) of one image; n may be 0."""
        chosen = self.image_index_N == index
        return self.boxes_xyxy_N4[chosen], self.labels_N[chosen]


@dataclass(slots=True)
class MaskTargets:
    """`masks_BHW`: uint8 class per pixel of the padded input; 255 = ignore, also in the padding."""

    masks_BHW: Tensor


@dataclass(slots=True)
class TaskBatch:
    """Images of one task with targets.

    `images_BCHW`: uint8 RGB, padded at the bottom and right to one size. `sizes_B2`: int64 (height,
    width) of the valid part of each, before padding. `targets`: what the task's kind collates, a dataclass of
    tensors; None when only predictions are wanted. `samples[i]` describes image i. `keep_scores`: the
    predictions will be joined with those of other views of the same images, so they must hold what their kind
    averages.
    """

    task: str
    images_BCHW: Tensor
    sizes_B2: Tensor
    targets: Any
    samples: tuple[SampleInfo, ...]
    keep_scores: bool = False

    def __len__(self) -> int:
        return self.images_BCHW.shape[0]

    def to(self, device: torch.device | str) -> "TaskBatch":
        """Copy every tensor to `device` (asynchronously from pinned memory)."""
        return _to(self, device)

    def pin_memory(self) -> "TaskBatch":
        return map_arrays(self, lambda t: t.pin_memory())


def _to(value: Any, device: torch.device | str) -> Any:
    return map_arrays(value, lambda t: t.to(device, non_blocking=True))


def map_arrays(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return a batch, its targets or a prediction with `function` done to every tensor or array in it."""
    changes = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if isinstance(item, (Tensor, np.ndarray)):
            changes[field.name] = function(item)
        elif is_dataclass(item):
            changes[field.name] = map_arrays(item, function)
    return replace(value, **changes)
