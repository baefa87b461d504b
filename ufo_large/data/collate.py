"""Stack views of one task into a TaskBatch, padded at the bottom and right."""

from collections.abc import Sequence

import cv2
import torch

from ufo_large.data.transforms.base import View
from ufo_large.kinds import kind_of
from ufo_large.structures import SampleInfo, TaskBatch, TaskInfo


def collate(
    info: TaskInfo, views: Sequence[View], samples: Sequence[SampleInfo], canvas: tuple[int, int]
) -> TaskBatch:
    """Return the batch; pixels beyond an image are 0. Targets are None unless every view has them."""
    images = torch.zeros(len(views), 3, *canvas, dtype=torch.uint8)
    sizes = [view.size for view in views]
    for image, view, (height, width) in zip(images, views, sizes, strict=True):
        _copy_pixels(image[:, :height, :width], view.image)
    targets = [view.targets for view in views]
    return TaskBatch(
        task=info.name,
        images_BCHW=images,
        sizes_B2=torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        targets=None if None in targets else kind_of(info).collate(targets, sizes, canvas),
        samples=tuple(samples),
    )


def _copy_pixels(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy [3, h, w]; pixels that lie interleaved, as decoders write them, are parted by OpenCV."""
    source = source.as_subclass(torch.Tensor)
    if source.stride(0) == 1 and source.stride(2) == 3:
        cv2.split(source.permute(1, 2, 0).numpy(), list(target.numpy()))
    else:
        target.copy_(source)
