"""Painted streets as a task's evaluation shows them to the network, for tests of what predicts pictures."""

from collections.abc import Sequence

import numpy as np
import torch

from ufo_large.data.scenes import render_street
from ufo_large.data.transforms.window import resize_hwc, whole_window
from ufo_large.structures import SampleInfo, TaskBatch, TaskInfo


def street_batch(
    info: TaskInfo, stored: Sequence[tuple[int, int]], size: tuple[int, int], keep_aspect: bool = False
) -> TaskBatch:
    """Return a street of each stored (height, width) and a black picture of the last, shown at `size`."""
    rng = np.random.default_rng(0)
    pictures = [render_street(*shape, rng).rgb_HW3 for shape in stored]
    pictures.append(np.zeros_like(pictures[-1]))
    images_BCHW = torch.zeros(len(pictures), 3, *size, dtype=torch.uint8)
    samples, sizes = [], []
    for i, picture in enumerate(pictures):
        height, width = whole_window(*picture.shape[:2], size, keep_aspect).out
        shown = torch.from_numpy(resize_hwc(picture, height, width)).permute(2, 0, 1)
        images_BCHW[i, :, :height, :width] = shown
        sizes.append((height, width))
        own = dict(zip(("height", "width"), picture.shape[:2], strict=True))
        samples.append(SampleInfo(key=str(i), file_name=f"{i}.png", image_id=i + 1, order=i, **own))
    return TaskBatch(info.name, images_BCHW, torch.tensor(sizes), None, tuple(samples))
