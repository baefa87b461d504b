"""Stack examples of one task into a TaskBatch, padded at the bottom and right."""

from collections.abc import Sequence

import cv2
import torch

from ufo_large.data.transforms.base import Example
from ufo_large.structures import (
    IGNORE_INDEX,
    BoxTargets,
    ClassTargets,
    MaskTargets,
    SampleInfo,
    Targets,
    TaskBatch,
    TaskInfo,
)


def collate(
    info: TaskInfo, examples: Sequence[Example], samples: Sequence[SampleInfo], canvas: tuple[int, int]
) -> TaskBatch:
    """Return the batch; pixels beyond an image are 0 and its mask there is IGNORE_INDEX.

    Targets are None unless every example has them.
    """
    images = torch.zeros(len(examples), 3, *canvas, dtype=torch.uint8)
    for image, example in zip(images, examples, strict=True):
        height, width = example.size
        _copy_pixels(image[:, :height, :width], example.image)
    return TaskBatch(
        task=info.name,
        images_BCHW=images,
        sizes_B2=torch.tensor([example.size for example in examples], dtype=torch.int64).reshape(-1, 2),
        targets=_targets(info.kind, examples, canvas),
        samples=tuple(samples),
    )


def _copy_pixels(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy [3, h, w]; pixels that lie interleaved, as decoders write them, are parted by OpenCV."""
    source = source.as_subclass(torch.Tensor)
    if source.stride(0) == 1 and source.stride(2) == 3:
        cv2.split(source.permute(1, 2, 0).numpy(), list(target.numpy()))
    else:
        target.copy_(source)


def _targets(kind: str, examples: Sequence[Example], canvas: tuple[int, int]) -> Targets | None:
    if any((e.mask if kind == "segmentation" else e.labels) is None for e in examples):
        return None
    if kind == "classification":
        return ClassTargets(labels_B=torch.cat([e.labels for e in examples]))
    if kind == "detection":
        counts = torch.tensor([len(e.labels) for e in examples])
        return BoxTargets(
            boxes_xyxy_N4=torch.cat([e.boxes.as_subclass(torch.Tensor) for e in examples]),
            labels_N=torch.cat([e.labels for e in examples]),
            image_index_N=torch.repeat_interleave(torch.arange(len(examples)), counts),
        )
    masks = torch.full((len(examples), *canvas), IGNORE_INDEX, dtype=torch.uint8)
    for mask, example in zip(masks, examples, strict=True):
        height, width = example.size
        mask[:height, :width] = example.mask
    return MaskTargets(masks_BHW=masks)
