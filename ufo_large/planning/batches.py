"""Batches of random images with random targets: what has the shape of training, without data."""

import torch

from ufo_large.kinds.depth import DepthTargets
from ufo_large.structures import BoxTargets, ClassTargets, MaskTargets, SampleInfo, TaskBatch, TaskInfo

KINDS = ("classification", "detection", "segmentation", "depth")
"""Kinds of tasks whose targets can be drawn."""


def random_batch(
    info: TaskInfo, num_images: int, size: tuple[int, int], seed: int = 0, boxes: int = 1
) -> TaskBatch:
    """Return images of (height, width) with targets of the task's kind; `boxes` in each image.

    A kind that is not in `KINDS` has no targets.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    samples = tuple(
        SampleInfo(
            key=f"{i:05}", file_name=f"{i:05}.jpg", height=height, width=width, image_id=i + 1, order=i
        )
        for i in range(num_images)
    )
    shape = (num_images, 3, height, width)
    return TaskBatch(
        task=info.name,
        images_BCHW=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        sizes_B2=torch.tensor([size] * num_images),
        targets=_targets(info, num_images, size, generator, boxes),
        samples=samples,
    )


def _targets(
    info: TaskInfo, num_images: int, size: tuple[int, int], generator: torch.Generator, boxes: int
) -> ClassTargets | BoxTargets | MaskTargets | DepthTargets | None:
    def labels(*shape: int) -> torch.Tensor:
        return torch.randint(0, info.num_classes, shape, generator=generator)

    if info.kind == "classification":
        return ClassTargets(labels_B=labels(num_images))
    if info.kind == "segmentation":
        return MaskTargets(masks_BHW=labels(num_images, *size).to(torch.uint8))
    if info.kind == "depth":
        return DepthTargets(depth_BHW=5 * torch.rand(num_images, *size, generator=generator))
    if info.kind != "detection":
        return None
    extent_2 = torch.tensor([size[1], size[0]])
    corner_N2 = torch.rand(num_images * boxes, 2, generator=generator) * extent_2 / 2
    boxes_N4 = torch.cat([corner_N2, corner_N2 + extent_2 / 4], dim=1)
    images_N = torch.arange(num_images).repeat_interleave(boxes)
    return BoxTargets(boxes_xyxy_N4=boxes_N4, labels_N=labels(num_images * boxes), image_index_N=images_N)
