"""The sample stream covers every epoch exactly, at any world size and through any stops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufo_large.data.sampler import (
    ClassBalanced,
    Position,
    RepeatFactor,
    SampleStream,
    Shuffle,
    repeat_factors,
    seed_of,
)


def flat(labels: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.concatenate([[0], np.cumsum([len(row) for row in labels])]).astype(np.int64)
    return starts, np.array([label for row in labels for label in row], dtype=np.int64)


@st.composite
def runs(draw):
    """A data set in parts and stretches of a run: (world size, micro-batch, steps) each."""
    count = draw(st.integers(1, 40))
    parts = draw(st.integers(1, min(4, count)))
    part_of = np.array([i % parts for i in range(count)])
    stretches = draw(
        st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 12)), min_size=1, max_size=5)
    )
    return part_of, stretches, draw(st.integers(0, 2**40))


@settings(max_examples=150, deadline=None)
@given(runs())
def test_every_sample_once_an_epoch_through_stops_and_other_world_sizes(run):
    part_of, stretches, seed = run
    position = SampleStream(Shuffle(len(part_of)), part_of, seed).start()
    seen: list[tuple[int, int]] = []
    for world_size, micro_batch, steps in stretches:
        stream = SampleStream(Shuffle(len(part_of)), part_of, seed)
        position = Position(tuple(position.epochs), tuple(position.offsets), position.steps)
        for _ in range(steps):
            part = stream.next_part(position)
            draws, position = stream.take(position, part, world_size * micro_batch)
            assert {part_of[d.index] for d in draws} == {part}
            seen += [(d.epoch, d.index) for d in draws]
    assert len(seen) == len(set(seen)), "a sample came twice in one epoch"
    expected = {
        (epoch, index) for index, part in enumerate(part_of) for epoch in range(position.epochs[part])
    }
    assert expected <= set(seen), "a finished epoch lacks a sample"
    partial = set(seen) - expected
    assert len(partial) == sum(position.offsets)
    assert all(epoch == position.epochs[part_of[index]] for epoch, index in partial)


def test_parts_advance_together():
    part_of = np.repeat([0, 1, 2], [100, 30, 5])
    stream = SampleStream(Shuffle(135), part_of, 0)
    position = stream.start()
    for _ in range(200):
        _, position = stream.take(position, stream.next_part(position), 4)
        progress = [stream._progress(position, p) for p in range(3)]
        assert max(progress) - min(progress) <= 4 / 5 + 1e-9
    assert stream.epochs_done(position) == pytest.approx(800 / 135, abs=1e-9)


def test_epochs_differ_and_repeat_with_the_seed():
    def epoch(seed: int, number: int) -> list[int]:
        stream = SampleStream(Shuffle(50), np.zeros(50, int), seed)
        draws, _ = stream.take(Position((number,), (0,)), 0, 50)
        return [d.index for d in draws]

    assert epoch(1, 0) == epoch(1, 0)
    assert epoch(1, 0) != epoch(1, 1)
    assert epoch(1, 0) != epoch(2, 0)


def test_shuffle_is_as_good_as_a_full_permutation():
    """Neighbours in storage land far apart: mean distance n/3, rank correlation 0, as for a permutation.

    Over 20 epochs of 1,000 the mean distance is within 2 % of n/3 and the correlation within 0.03 (its
    standard deviation is 1 / sqrt(20 * 999) = 0.007).
    """
    count, epochs = 1000, 20
    orders = [Shuffle(count).order(seed_of("test", e)) for e in range(epochs)]
    places = np.array([np.argsort(order) for order in orders])
    distance = np.abs(np.diff(places, axis=1)).mean()
    correlation = np.mean([np.corrcoef(order, np.arange(count))[0, 1] for order in orders])
    assert distance == pytest.approx(count / 3, rel=0.02)
    assert abs(correlation) < 0.03


def test_class_balanced_draws_every_class_equally():
    starts, labels = flat([[0]] * 90 + [[1]] * 9 + [[2]])
    sampling = ClassBalanced.Config().build(starts, labels)
    order = sampling.order(3)
    counts = np.bincount(np.array([0] * 90 + [1] * 9 + [2])[order])
    assert len(order) == 100
    assert sorted(counts) == [33, 33, 34]
    per_image = np.bincount(order, minlength=100)
    assert per_image[:90].max() == 1
    assert per_image[90:99].max() - per_image[90:99].min() <= 1


def test_class_balanced_keeps_images_without_labels():
    order = ClassBalanced(*flat([[], [0], [0, 1], []])).order(0)
    assert len(order) == 4
    assert set(order) & {0, 3}


def test_repeat_factors_by_hand():
    """Class 1 is in 1 of 4 images: sqrt(0.5 / 0.25); class 0 in 3 of 4 keeps factor 1; no label: 1."""
    factors = repeat_factors(*flat([[0], [0], [0, 1], []]), threshold=0.5)
    assert factors == pytest.approx([1, 1, np.sqrt(2), 1])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1, 5), min_size=1, max_size=50), st.integers(0, 2**40))
def test_repeat_factor_draws_are_rounded_factors(factors, seed):
    """An epoch's length is the rounded sum; a draw is the floor or the ceiling of its factor, at least 1.

    Scaling to the fixed length can lift a factor by at most 1 / sum(factor - 1) of itself, so one more draw.
    """
    factors = np.array(factors)
    sampling = RepeatFactor(factors)
    drawn = np.bincount(sampling.order(seed), minlength=len(factors))
    assert drawn.sum() == len(factors) + sampling.extra
    assert (drawn >= np.floor(factors - 1e-5).clip(min=1)).all()
    assert (drawn <= np.ceil(factors) + 1).all()


def test_repeat_factor_is_unbiased():
    factors = np.array([1.0, 1.5, 2.25, 1.25])
    sampling = RepeatFactor(factors)
    mean = np.mean([np.bincount(sampling.order(s), minlength=4) for s in range(2000)], axis=0)
    assert mean == pytest.approx(factors, abs=0.04)


def test_repeat_factor_refuses_a_senseless_threshold():
    with pytest.raises(ValueError, match="threshold 0"):
        RepeatFactor.Config(threshold=0)
