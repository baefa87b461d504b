"""Assignments of many problems at once, against trying every one of them."""

from itertools import permutations

import pytest
import torch

from ufo_large.tasks.assignment import assigned


def cheapest(costs_nQ: torch.Tensor) -> float:
    """Return the least sum over all ways to give each row a column of its own, or each column a row."""
    if costs_nQ.shape[0] > costs_nQ.shape[1]:
        costs_nQ = costs_nQ.T
    rows, columns = costs_nQ.shape
    return min(sum(costs_nQ[i, c] for i, c in enumerate(way)) for way in permutations(range(columns), rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_matching_of_every_image_costs_least(dtype):
    """Three images: with fewer targets than queries, with more, and with none between them."""
    torch.manual_seed(0)
    image_N = torch.tensor([3, 0, 3, 0, 3, 3, 3, 3])
    costs_NRQ = torch.randn(8, 3, 4, dtype=dtype)
    targets, queries = assigned(costs_NRQ, image_N)
    assert targets.shape == queries.shape == (3, 2 + 4)
    for r in range(3):
        assert image_N[targets[r]].tolist() == [0] * 2 + [3] * 4
        for image, pairs in ((0, slice(0, 2)), (3, slice(2, 6))):
            target, query = targets[r, pairs], queries[r, pairs]
            assert query.tolist() == sorted(set(query.tolist())) and len(set(target.tolist())) == len(target)
            found = costs_NRQ[target, r, query].sum()
            torch.testing.assert_close(found, cheapest(costs_NRQ[image_N == image, r]))


def test_costs_that_are_no_numbers_are_taken_last():
    costs_NRQ = torch.tensor([[[torch.nan, 5.0]], [[1.0, 2.0]]])
    targets, queries = assigned(costs_NRQ, torch.zeros(2, dtype=torch.int64))
    assert targets.tolist() == [[1, 0]] and queries.tolist() == [[0, 1]]


def test_no_target_is_no_pair():
    targets, queries = assigned(torch.zeros(0, 3, 4), torch.zeros(0, dtype=torch.int64))
    assert targets.shape == queries.shape == (3, 0) and queries.dtype == torch.int64
