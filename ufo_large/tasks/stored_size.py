"""From maps of the padded input to maps of each stored image.

Legend: B images, C channels, H W height and width.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from ufo_large.structures import SampleInfo, TaskBatch
from ufo_large.tasks.pyramid_fusion import enlarge

ALL = slice(None)


def at_stored_size(maps_BCHW: Tensor, stride: float, batch: TaskBatch) -> Iterator[tuple[SampleInfo, Tensor]]:
    """Yield each image with its part of a map at `stride`, float32 [C, H, W] at the stored image's size.

    One image at a time: at the stored size the maps of a whole batch could be gigabytes.
    """
    for sample, at_size in when_called(maps_BCHW, stride, batch):
        yield sample, at_size()


def when_called(
    maps_BCHW: Tensor, stride: float, batch: TaskBatch
) -> Iterator[tuple[SampleInfo, Callable[..., Tensor]]]:
    """Yield each image with a function that makes its map of `at_stored_size`; until then it stays small.

    The function takes the channels wanted, a slice, default all.
    """
    for map_CHW, size, sample in zip(maps_BCHW.float(), batch.sizes_B2.tolist(), batch.samples, strict=True):
        yield sample, partial(_resized, map_CHW, stride, size, (sample.height, sample.width))


def _resized(
    map_CHW: Tensor,
    stride: float,
    valid: list[int],
    stored: tuple[int, int],
    channels: slice = ALL,
) -> Tensor:
    height, width = valid
    map_1CHW = enlarge(map_CHW[None, channels], stride)[..., :height, :width]
    return F.interpolate(map_1CHW, size=stored, mode="bilinear", align_corners=False)[0]
