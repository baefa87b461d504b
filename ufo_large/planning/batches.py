"""Batches of random images with random targets: what has the shape of training, without data."""

import torch

from ufo_large.kinds import kind_of
from ufo_large.structures import SampleInfo, TaskBatch, TaskInfo


def random_batch(
    info: TaskInfo, num_images: int, size: tuple[int, int], seed: int = 0, boxes: int = 1, alike: bool = False
) -> TaskBatch:
    """Return images of (height, width) with what the task's kind draws as targets, if anything.

    `boxes`: in each image. `alike`: all images are one in memory.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    samples = tuple(
        SampleInfo(
            key=f"{i:05}", file_name=f"{i:05}.jpg", height=height, width=width, image_id=i + 1, order=i
        )
        for i in range(num_images)
    )
    drawn = torch.randint(
        0, 256, (1 if alike else num_images, 3, height, width), dtype=torch.uint8, generator=generator
    )
    return TaskBatch(
        task=info.name,
        images_BCHW=drawn.expand(num_images, -1, -1, -1),
        sizes_B2=torch.tensor([size] * num_images),
        targets=kind_of(info).random_targets(info, num_images, size, generator, boxes),
        samples=samples,
    )
