"""Which query answers for which target: every matching of a micro-batch with one transfer to the host.

A matching by layer and image, as the published losses have it, makes the host wait for the device dozens of
times in a micro-batch.

Legend: N targets of all images, R matchings of each (predictions, groups), Q queries, M pairs of a matching.
"""

import numpy as np
import torch
from torch import Tensor


def assigned(costs_NRQ: Tensor, image_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return (target, query), int64 [R, M] each: in every matching the pairs of least cost of each image.

    An image of n targets has min(n, Q) pairs. Pairs come by image, then by query. Costs that are no numbers
    count as the highest. Waits once for the device, and not where there is no target.
    """
    rows, queries = _on_host(costs_NRQ, image_N)
    found_2RM = torch.from_numpy(np.stack([rows, queries])).to(costs_NRQ.device, non_blocking=True)
    return found_2RM[0], found_2RM[1]


def _on_host(costs_NRQ: Tensor, image_N: Tensor) -> tuple[np.ndarray, np.ndarray]:
    num_targets, matchings, _ = costs_NRQ.shape
    if not num_targets:
        return (np.zeros((matchings, 0), dtype=np.int64),) * 2
    highest = torch.finfo(costs_NRQ.dtype).max
    costs_NRQ = costs_NRQ.nan_to_num(nan=highest, posinf=highest, neginf=highest)
    packed = torch.cat([costs_NRQ.flatten(1), image_N[:, None].to(costs_NRQ.dtype)], dim=1).cpu().numpy()
    costs_NRQ, image_N = packed[:, :-1].reshape(costs_NRQ.shape), packed[:, -1]
    of_images = [np.flatnonzero(image_N == image) for image in np.unique(image_N)]
    pairs = [_pairs(costs_NRQ[targets].swapaxes(0, 1), targets) for targets in of_images]
    return tuple(np.concatenate(parts, axis=1) for parts in zip(*pairs, strict=True))


def _pairs(costs_RnQ: np.ndarray, targets_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets and queries of one image's pairs, [R, m] each."""
    from scipy.optimize import linear_sum_assignment  # half a second to import: only training pays

    queries, places = zip(*(linear_sum_assignment(costs_nQ.T) for costs_nQ in costs_RnQ), strict=True)
    return targets_n[np.stack(places)], np.stack(queries)
