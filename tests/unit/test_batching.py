"""Batch shapes: equal work on all ranks, a budget over steps, next to no padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufo_large.data.batching import (
    AspectBuckets,
    BatchShape,
    FixedShape,
    MultiScale,
    candidate_canvases,
    padding_share,
    trunk_work,
)

FULL = BatchShape(8, (512, 512))


def test_work_by_hand():
    """32 x 32 tokens at width 1408: 1024 (1 + 1024 / 8448); rounded up to whole patches."""
    assert trunk_work((512, 512), 16, 1408) == pytest.approx(1024 * (1 + 1024 / 8448))
    assert trunk_work((500, 512), 16, 1408) == trunk_work((512, 512), 16, 1408)


def test_padding_by_hand():
    """A 2:1 image on a square canvas leaves half of it empty."""
    assert padding_share(np.array([2.0, 1.0, 0.5]), (64, 64)).tolist() == [0.5, 0.0, 0.5]


def test_candidates_keep_the_work():
    found = candidate_canvases((512, 512), 16)
    tokens = np.array([h * w / 256 for h, w in found])
    assert found[0] == (512, 512) and len(found) > 50
    assert tokens.max() <= 1024 and tokens.min() >= 0.7 * 1024
    assert all(h % 16 == 0 and w % 16 == 0 for h, w in found)


def test_equal_images_make_one_bucket_of_their_shape():
    """BDD100K's 1280x720 at 512x912-ish work, and TT100K's squares: one canvas, at most 1 % padding."""
    for height, width, full in ((720, 1280, (512, 912)), (2048, 2048, (1024, 1024))):
        shapes = AspectBuckets.Config().build(np.full(500, height), np.full(500, width), BatchShape(2, full))
        assert shapes.part_of.tolist() == [0] * 500
        canvas = shapes.shape(0, 0).canvas
        assert padding_share(np.array([height / width]), canvas)[0] <= 0.01


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(50, 3000), st.integers(50, 3000)), min_size=1, max_size=60),
    st.integers(1, 8),
    st.integers(1, 30),
)
def test_buckets_hold_everything_within_the_budget(sizes, max_buckets, min_samples):
    heights, widths = np.array(sizes).T
    config = AspectBuckets.Config(max_buckets=max_buckets, min_samples=min_samples)
    shapes = config.build(heights, widths, FULL)
    parts = np.bincount(shapes.part_of)
    assert len(shapes.part_of) == len(sizes) and 1 <= len(parts) <= max_buckets
    assert len(parts) == len(shapes.shapes) and parts.min() >= 1
    for part in range(len(parts)):
        shape = shapes.shape(part, 0)
        assert shape.images >= 1
        assert (
            shape.images * trunk_work(shape.canvas, 16, 1408) <= 8 * trunk_work((512, 512), 16, 1408) + 1e-6
        )


def test_varied_aspects_pad_one_percent():
    """Aspects spread over 1:2 to 2:1: one square canvas pads 28 %, 40 buckets below 1 % (measured 0.96)."""
    rng = np.random.default_rng(0)
    heights = np.full(5000, 600)
    widths = (600 * np.exp(rng.uniform(-0.69, 0.69, 5000))).astype(int)
    shapes = AspectBuckets.Config(max_buckets=40).build(heights, widths, FULL)
    canvases = [s.canvas for s in shapes.shapes]
    padding = [padding_share(heights[[i]] / widths[[i]], canvases[shapes.part_of[i]])[0] for i in range(5000)]
    assert np.mean(padding_share(heights / widths, (512, 512))) > 0.2
    assert np.mean(padding) <= 0.01
    assert np.bincount(shapes.part_of).min() >= 50


def test_multi_scale_keeps_the_budget_on_all_ranks():
    shapes = MultiScale.Config(scales=(0.5, 1.0, 1.25)).build(np.ones(3), np.ones(3), FULL)
    drawn = {shapes.shape(0, seed) for seed in range(20)}
    assert {s.canvas for s in drawn} == {(256, 256), (512, 512), (640, 640)}
    full = 8 * trunk_work((512, 512), 16, 1408)
    for shape in drawn:
        work = shape.images * trunk_work(shape.canvas, 16, 1408)
        assert full * (1 - 1 / (shape.images + 1)) <= work <= full + 1e-6
    assert shapes.shape(0, 7) == shapes.shape(0, 7)


def test_a_scale_beyond_the_budget_is_refused():
    with pytest.raises(ValueError, match="raise micro_batch"):
        MultiScale.Config(scales=(1.5,)).build(np.ones(1), np.ones(1), BatchShape(1, (512, 512)))


def test_fixed_shape():
    shapes = FixedShape.Config().build(np.ones(4), np.ones(4), FULL)
    assert shapes.shape(0, 9) == FULL and shapes.part_of.tolist() == [0, 0, 0, 0]
