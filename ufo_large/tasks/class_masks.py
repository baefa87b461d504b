"""True masks of a batch, one for every class of every image: what heads with queries are matched with.

Legend: B images, M masks of the batch, K classes, H W height and width.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ufo_large.structures import IGNORE_INDEX


class ClassMasks(NamedTuple):
    """Float `masks_MHW` of 0 and 1, the class and the image of each; by image, then by class.

    `per_image`: how many each image has, on the host.
    """

    masks_MHW: Tensor
    labels_M: Tensor
    image_M: Tensor
    per_image: list[int]


def class_masks(masks_BHW: Tensor, size: tuple[int, int]) -> ClassMasks:
    """Return the masks of uint8 class maps, padded to `size` (height, width) with pixels to ignore.

    Waits once for the device: how many classes there are is a shape.
    """
    bottom, right = (full - own for full, own in zip(size, masks_BHW.shape[-2:], strict=True))
    masks_BHW = F.pad(masks_BHW, (0, right, 0, bottom), value=IGNORE_INDEX)
    is_there_BK = masks_BHW.new_zeros(len(masks_BHW), IGNORE_INDEX + 1)
    is_there_BK = is_there_BK.scatter(1, masks_BHW.flatten(1).long(), 1)[:, :IGNORE_INDEX].cpu()
    image_M, labels_M = is_there_BK.nonzero().T.to(masks_BHW.device, non_blocking=True)
    masks_MHW = (masks_BHW[image_M] == labels_M[:, None, None]).float()
    return ClassMasks(masks_MHW, labels_M, image_M, is_there_BK.sum(1).tolist())
