"""Which object each pyramid cell answers for (FCOS, arXiv:2006.09214, section 3.1), without waiting for them.

torchvision's assignment goes image by image and picks cells by masks, for which the host waits.

Legend: B images, N boxes of the batch, A cells of all levels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ufo_large.structures import BoxTargets

_LEAST, _MOST = 4.0, 8.0  # a level takes objects whose farthest side is that many strides away
_ROUNDING = 1e8  # as torchvision compares areas: in float32 those of a few pixels' difference are equal


class CellTargets(NamedTuple):
    """`is_object_BA`: whether a cell answers for an object; else its box is the cell, its class 0."""

    is_object_BA: Tensor
    boxes_xyxy_BA4: Tensor
    labels_BA: Tensor


def cell_targets(
    targets: BoxTargets, cells_A4: Tensor, cells_per_level: list[int], images: int, radius: float
) -> CellTargets:
    """Return what each cell of each image should find: the smallest object that it may answer for.

    `cells_A4`: squares, xyxy, levels from fine to coarse. `radius`: how many strides its centre may be from
    the object's.
    """
    fits_NA = _fits(targets.boxes_xyxy_N4, cells_A4, cells_per_level, radius)
    box_BA = _smallest(targets, fits_NA, images)
    is_object_BA = box_BA < len(fits_NA)
    boxes_N4, labels_N = F.pad(targets.boxes_xyxy_N4, (0, 0, 0, 1)), F.pad(targets.labels_N, (0, 1))
    boxes_BA4 = torch.where(is_object_BA[..., None], boxes_N4[box_BA], cells_A4)
    return CellTargets(is_object_BA, boxes_BA4, labels_N[box_BA])


def _fits(boxes_N4: Tensor, cells_A4: Tensor, cells_per_level: list[int], radius: float) -> Tensor:
    """Return whether a cell may answer for a box: inside it, near its centre, on the level of its size."""
    centres_A2, side_A = (cells_A4[:, :2] + cells_A4[:, 2:]) / 2, cells_A4[:, 2] - cells_A4[:, 0]
    off_NA2 = centres_A2 - (boxes_N4[:, None, :2] + boxes_N4[:, None, 2:]) / 2
    is_near_NA = off_NA2.abs().amax(-1) < radius * side_A
    reach_NA4 = torch.cat([centres_A2 - boxes_N4[:, None, :2], boxes_N4[:, None, 2:] - centres_A2], dim=-1)
    least_A, most_A = _LEAST * side_A, _MOST * side_A
    least_A[: cells_per_level[0]] = 0
    most_A[-cells_per_level[-1] :] = torch.inf
    farthest_NA = reach_NA4.amax(-1)
    is_of_level_NA = (farthest_NA > least_A) & (farthest_NA < most_A)
    return is_near_NA & (reach_NA4.amin(-1) > 0) & is_of_level_NA


def _smallest(targets: BoxTargets, fits_NA: Tensor, images: int) -> Tensor:
    """Return, per image and cell, the index of the smallest box that fits (the first of equals), else N."""
    num_boxes, num_cells = fits_NA.shape
    sides_N2 = targets.boxes_xyxy_N4[:, 2:] - targets.boxes_xyxy_N4[:, :2]
    size_N = sides_N2[:, 0] * sides_N2[:, 1] - _ROUNDING
    size_NA = torch.where(fits_NA, size_N[:, None], torch.inf)
    image_NA = targets.image_index_N[:, None].expand(-1, num_cells)
    least_BA = size_NA.new_full((images, num_cells), torch.inf).scatter_reduce(0, image_NA, size_NA, "amin")
    is_it_NA = fits_NA & (size_NA == least_BA[targets.image_index_N])
    index_NA = torch.arange(num_boxes, device=fits_NA.device)[:, None]
    index_NA = torch.where(is_it_NA, index_NA, num_boxes)
    return index_NA.new_full((images, num_cells), num_boxes).scatter_reduce(0, image_NA, index_NA, "amin")
