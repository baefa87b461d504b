"""Weighted box fusion against values by hand and against those of the authors' package."""

import numpy as np

from ufo_large.kinds.box_fusion import FUSION_IOU, weighted_boxes

VIEWS = 2


def fused(*rows, num_views=VIEWS):
    """Each row: x0, y0, x1, y1, score, label; returns the same, best first."""
    rows = np.array(rows, float).reshape(-1, 6)
    boxes, scores, labels = weighted_boxes(rows[:, :4], rows[:, 4], rows[:, 5].astype(int), num_views)
    return np.column_stack([boxes, scores, labels])


def test_two_views_of_one_box_by_hand():
    """IoU 0.8; corners weigh by score: (0.8 * 10 + 0.4 * 8) / 1.2 = 28 / 3; the score is the mean."""
    found = fused((0, 0, 10, 10, 0.8, 1), (0, 0, 10, 8, 0.4, 1))
    np.testing.assert_allclose(found, [(0, 0, 10, 28 / 3, 0.6, 1)])


def test_what_only_one_view_saw_counts_half():
    found = fused((0, 0, 10, 10, 0.8, 1), (50, 50, 60, 60, 0.9, 1))
    np.testing.assert_allclose(found, [(50, 50, 60, 60, 0.45, 1), (0, 0, 10, 10, 0.4, 1)])


def test_classes_are_fused_apart():
    assert fused((0, 0, 10, 10, 0.8, 1), (0, 0, 10, 10, 0.6, 2))[:, 5].tolist() == [1, 2]


def test_more_boxes_than_views_do_not_lift_the_score_above_their_mean():
    found = fused(*[(0, 0, 10, 10, score, 0) for score in (0.9, 0.6, 0.3)])
    np.testing.assert_allclose(found, [(0, 0, 10, 10, 0.6, 0)])


def test_a_box_joins_a_cluster_where_it_is_now():
    """The first two make (0, 0, 10, 9): the third meets that with 5.2 / 9, the first alone with 5.2 / 10."""
    found = fused((0, 0, 10, 10, 0.5, 0), (0, 0, 10, 8, 0.5, 0), (0, 0, 10, 5.2, 0.1, 0))
    np.testing.assert_allclose(found, [(0, 0, 10, (5 + 4 + 0.52) / 1.1, 1.1 / 3, 0)])


def test_an_overlap_of_exactly_the_threshold_is_no_match():
    height = 100 * FUSION_IOU
    assert len(fused((0, 0, 100, 100, 0.8, 0), (0, 0, 100, height, 0.7, 0))) == 2
    assert len(fused((0, 0, 100, 100, 0.8, 0), (0, 0, 100, height + 1, 0.7, 0))) == 1


def test_boxes_without_area_are_dropped_and_scores_of_zero_are_averaged():
    assert len(fused((5, 5, 5, 9, 0.9, 0))) == 0 == len(fused())
    np.testing.assert_allclose(
        fused((0, 0, 10, 10, 0, 0), (0, 0, 10, 8, 0, 0)), [(0, 0, 10, 9, 0, 0)], rtol=1e-12
    )


# Three views of some boxes, and what `weighted_boxes_fusion` of the package ensemble_boxes 1.0.9 makes of
# them at this threshold. That package is the authors'; it needs numba, too much for one test.
SEEN = (
    ((0.02, 0.02, 0.28, 0.07, 0.7, 0), (0.58, 0.64, 0.84, 0.7, 0.67, 1), (0.42, 0.5, 0.65, 0.6, 0.7, 0)),
    ((0.44, 0.2, 0.63, 0.48, 0.9, 0), (0.04, 0, 0.3, 0.05, 0.27, 1), (0.58, 0.65, 0.85, 0.71, 0.64, 0))
    + ((0.43, 0.51, 0.66, 0.61, 0.13, 1),),
    ((0.45, 0.19, 0.64, 0.48, 0.6, 1), (0.56, 0.63, 0.83, 0.69, 0.33, 1), (0.41, 0.53, 0.65, 0.62, 0.69, 1)),
)
FUSED = (
    (0.5734, 0.6367, 0.8367, 0.6967, 0.333333, 1),
    (0.44, 0.2, 0.63, 0.48, 0.3, 0),
    (0.413171, 0.526829, 0.651585, 0.618415, 0.273333, 1),
    (0.02, 0.02, 0.28, 0.07, 0.233333, 0),
    (0.42, 0.5, 0.65, 0.6, 0.233333, 0),
    (0.58, 0.65, 0.85, 0.71, 0.213333, 0),
    (0.45, 0.19, 0.64, 0.48, 0.2, 1),
    (0.04, 0, 0.3, 0.05, 0.09, 1),
)


def test_as_the_authors_package():
    found = fused(*sum(SEEN, ()), num_views=len(SEEN))
    order = np.lexsort((found[:, 0], -found[:, 4].round(6)))  # theirs leaves ties in an order of its own
    expected = np.array(sorted(FUSED, key=lambda row: (-row[4], row[0])))
    np.testing.assert_allclose(found[order], expected, atol=1e-6)
