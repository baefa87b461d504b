"""What the trunk hands to a head.

Legend: B images, Q queries, D trunk width, P pyramid width, H W height and width of a feature map.
"""

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """Features of one micro-batch. A tuple, because DeepSpeed's hooks look for tensors in tuples and dicts.

    `pooled_BD`: one vector an image, pooled as the timm model pools. `map_BDHW`: normalised patch
    tokens on their grid, one cell per `stride` input pixels. `pyramid`: stride -> map [B, P, H, W], for
    the strides the head asked for, finest first; empty if it asked for none. `image_size`: (height,
    width) of the padded input in pixels. `queries_BQD`: the head's own tokens after the trunk's last blocks,
    normalised as the patches are; None where the head has none. `earlier`: the maps, [N, B, D, H, W], and the
    queries, [N, B, Q, D], before each of these blocks, where the head asked for them and while training.
    """

    pooled_BD: Tensor
    map_BDHW: Tensor
    stride: int
    image_size: tuple[int, int]
    pyramid: dict[int, Tensor] = {}
    queries_BQD: Tensor | None = None
    earlier: tuple[Tensor, Tensor] | None = None


class Queries(NamedTuple):
    """A head's own tokens, [Q, D], for the last `blocks` blocks of the trunk.

    `every_block`: while training, what goes into each of them comes to the head too.
    """

    tokens_QD: Tensor
    blocks: int
    every_block: bool = False
