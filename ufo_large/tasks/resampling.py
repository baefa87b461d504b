"""Bilinear resampling as two small matrix products on GPUs, whose backward pass is deterministic.

torch's own adds gradients up in the order in which threads come by, so two runs differ; on a CPU it does not,
and there it is much the faster.

Legend: B images, C channels, H W height and width of a map, h w of the resampled one.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


def resampled(x_BCHW: Tensor, ratio: float, size: tuple[int, int]) -> Tensor:
    """Return the first `size` (height, width) cells of a map whose cells are `ratio` times as fine.

    Cell edges stay where they are in the image (`align_corners=False`); beyond the map its border is
    repeated. Computed in float32 inside, returned in the dtype of `x_BCHW`.
    """
    return (by_products if x_BCHW.is_cuda else by_torch)(x_BCHW, ratio, size)


def by_torch(x_BCHW: Tensor, ratio: float, size: tuple[int, int]) -> Tensor:
    """Resample with `F.interpolate`."""
    if any(cells > int(side * ratio) for cells, side in zip(size, x_BCHW.shape[-2:], strict=True)):
        x_BCHW = F.pad(x_BCHW, (0, 2, 0, 2), mode="replicate")
    resampled_BChw = F.interpolate(x_BCHW, scale_factor=ratio, mode="bilinear", align_corners=False)
    return resampled_BChw[..., : size[0], : size[1]]


def by_products(x_BCHW: Tensor, ratio: float, size: tuple[int, int]) -> Tensor:
    """Resample rows and columns with one product each, in the layout that the map has."""
    weights_hH, weights_wW = (
        _weights(side, ratio, cells, x_BCHW.device)
        for side, cells in zip(x_BCHW.shape[-2:], size, strict=True)
    )
    with torch.autocast(x_BCHW.device.type, enabled=False):
        if x_BCHW.is_contiguous():
            return (weights_hH @ (x_BCHW.float() @ weights_wW.T)).to(x_BCHW.dtype)
        rows_Bhx = weights_hH @ x_BCHW.float().permute(0, 2, 3, 1).flatten(2)
        columns_BhwC = weights_wW @ rows_Bhx.unflatten(2, (x_BCHW.shape[3], -1))
        return columns_BhwC.to(x_BCHW.dtype).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=256)
def _weights(side: int, ratio: float, cells: int, device: torch.device) -> Tensor:
    """Return the shares of `side` cells in each of the new ones, [cells, side]: at most two in a row."""
    with torch.inference_mode(False):
        place_h = ((torch.arange(cells, dtype=torch.float64) + 0.5) / ratio - 0.5).clamp(0, side - 1)
        shares_hH = (1 - (place_h[:, None] - torch.arange(side)).abs()).clamp(min=0)
        return shares_hH.float().to(device, non_blocking=True)
