"""From maps of the padded input to maps of each stored image.

Legend: B images, C channels, H W height and width.
"""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from ufo_large.structures import SampleInfo, TaskBatch
from ufo_large.tasks.pyramid_fusion import enlarge


def at_stored_size(maps_BCHW: Tensor, stride: int, batch: TaskBatch) -> Iterator[tuple[SampleInfo, Tensor]]:
    """Yield each image with its part of a map at `stride`, float32 [C, H, W] at the stored image's size.

    One image at a time: at the stored size the maps of a whole batch could be gigabytes.
    """
    for map_CHW, (height, width), sample in zip(
        maps_BCHW.float(), batch.sizes_B2.tolist(), batch.samples, strict=True
    ):
        map_1CHW = enlarge(map_CHW[None], stride)[..., :height, :width]
        stored_size = (sample.height, sample.width)
        yield sample, F.interpolate(map_1CHW, size=stored_size, mode="bilinear", align_corners=False)[0]
