"""Evaluation sees every sample once, in step on all ranks; tiles cover an image and join again."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ufo_large.data.evaluation_batches import evaluation_batches, rank_chunks
from ufo_large.data.shards import ShardSet
from ufo_large.data.tiles import Tiling, merge_tiles, tiles_of
from ufo_large.kinds.boxes import MAX_BOXES
from ufo_large.structures import BoxPrediction, SampleInfo, TaskInfo, TileSample
from ufo_large.testing.tiny_shards import tiny_shards

TWO = Tiling(rows=2, columns=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    return ShardSet.open(tiny_shards(tmp_path_factory.mktemp("tiny"), count=7))


DETECTION = TaskInfo(name="dec", kind="detection", class_names=("a", "b"), class_ids=(0, 1))


def batches(shards, task, rank=0, world_size=1, **options):
    options = {"image_size": (48, 64), "micro_batch": 2, **options}
    reader = shards.split(task, "train")
    return list(evaluation_batches(reader, shards.task(task), rank=rank, world_size=world_size, **options))


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 9))
def test_chunks_cover_once_in_step(count, chunk, world_size):
    ranks = [rank_chunks(count, chunk, r, world_size) for r in range(world_size)]
    assert sorted(i for chunks in ranks for part in chunks for i in part) == list(range(count))
    assert len({len(chunks) for chunks in ranks}) == 1
    assert all(len(part) <= chunk for chunks in ranks for part in chunks)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_every_sample_once_over_all_ranks(shards, world_size):
    ranks = [batches(shards, "dec", r, world_size) for r in range(world_size)]
    orders = [s.order for b in itertools.chain(*ranks) for s in b.samples]
    assert sorted(orders) == list(range(7))
    assert len({len(r) for r in ranks}) == 1
    assert all(len(b) == max(1, len(b.samples)) for b in itertools.chain(*ranks))


def test_several_ranks_see_the_batches_of_one(shards):
    one = {b.samples: b.images_BCHW for b in batches(shards, "seg")}
    for rank in range(3):
        for batch in batches(shards, "seg", rank, 3):
            assert not batch.samples or torch.equal(one[batch.samples], batch.images_BCHW)


def test_workers_give_the_same(shards):
    pairs = zip(batches(shards, "cls"), batches(shards, "cls", workers=1), strict=True)
    assert all(torch.equal(a.images_BCHW, b.images_BCHW) and a.samples == b.samples for a, b in pairs)


def test_stretch_and_keep_aspect(shards):
    stretched, kept = batches(shards, "dec"), batches(shards, "dec", keep_aspect=True)
    assert all(size == [48, 64] for b in stretched for size in b.sizes_B2.tolist())
    for batch in kept:
        for sample, (height, width) in zip(batch.samples, batch.sizes_B2.tolist(), strict=True):
            factor = min(48 / sample.height, 64 / sample.width)
            assert (height, width) == (round(sample.height * factor), round(sample.width * factor))


def test_a_broken_picture_is_named(tmp_path):
    shards = ShardSet.open(tiny_shards(tmp_path, count=4))
    reader = shards.split("cls", "train")
    with open(reader.shard_of(1), "r+b") as file:
        file.seek(int(reader._rows["image_offsets"][1]))
        file.write(b"junk")
    with pytest.raises(
        ValueError, match=r"001.png in .*cls/train-000000.tar: its bytes are not.*skips nothing"
    ):
        batches(ShardSet.open(tmp_path / "shards"), "cls")


def scene(height: int = 200, width: int = 300) -> SampleInfo:
    return SampleInfo(key="k", file_name="k.jpg", height=height, width=width, image_id=1, order=0)


def test_tiles_cover_with_overlap():
    tiles = tiles_of(scene(), Tiling(rows=2, columns=3, overlap=20, whole=False))
    assert [(t.top, t.left, t.height, t.width) for t in tiles] == [
        (top, left, 110, 114) for top in (0, 90) for left in (0, 93, 186)
    ]
    assert len(tiles_of(scene(), Tiling(rows=1, columns=1, whole=True))) == 1
    assert tiles_of(scene(), TWO)[-1].height == 200


def predicted(tile: SampleInfo, boxes, scores, labels=None) -> BoxPrediction:
    labels = labels or [0] * len(boxes)
    return BoxPrediction(
        sample=tile,
        boxes_xyxy_N4=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores_N=torch.tensor(scores, dtype=torch.float32),
        labels_N=torch.tensor(labels, dtype=torch.int64),
    )


def test_tiles_of_a_perfect_detector_join_to_the_truth():
    """Each tile reports the visible part of each object; joined, every object comes back once and whole."""
    source = scene()
    objects = torch.tensor([[95, 95, 108, 108], [5, 5, 15, 15], [140, 85, 160, 115], [40, 20, 280, 190.0]])
    predictions = []
    for tile in tiles_of(source, Tiling(rows=2, columns=2, overlap=40)):
        offset = torch.tensor([tile.left, tile.top, tile.left, tile.top])
        local = (objects - offset).clamp(min=0).minimum(torch.tensor([tile.width, tile.height] * 2))
        seen = ((local[:, 2:] - local[:, :2]) > 0).all(1)
        area = (local[:, 2:] - local[:, :2]).prod(1) / (objects[:, 2:] - objects[:, :2]).prod(1)
        keep = seen & ((area > 0.99) | (torch.arange(4) < 3))
        predictions.append(predicted(tile, local[keep].tolist(), (0.5 + 0.4 * area[keep]).tolist()))
    (merged,) = merge_tiles(DETECTION, predictions)
    assert merged.sample == source
    assert sorted(merged.boxes_xyxy_N4.tolist()) == sorted(objects.tolist())


def test_boxes_of_other_classes_survive_and_the_limit_holds():
    tile = tiles_of(scene(), Tiling(rows=1, columns=2, overlap=40, whole=False))[0]
    boxes = [[10, 10, 30, 30], [11, 10, 30, 30], [10, 11, 30, 30]]
    (merged,) = merge_tiles(DETECTION, [predicted(tile, boxes, [0.9, 0.8, 0.7], [0, 0, 1])])
    assert merged.scores_N.tolist() == pytest.approx([0.9, 0.7])
    apart = [[20.0 * (i % 8), 10.0 * (i // 8), 20.0 * (i % 8) + 9, 10.0 * (i // 8) + 9] for i in range(110)]
    (limited,) = merge_tiles(DETECTION, [predicted(tile, apart, [i / 110 for i in range(110)])])
    assert len(limited.scores_N) == MAX_BOXES and limited.scores_N.min() == pytest.approx(10 / 110)
    classes = [i % 2 for i in range(110)]  # the metric counts as many of each class
    (both,) = merge_tiles(DETECTION, [predicted(tile, apart, [i / 110 for i in range(110)], classes)])
    assert len(both.scores_N) == 110 and both.scores_N.tolist() == sorted(both.scores_N.tolist())[::-1]


def test_images_without_boxes_stay():
    tiles = [*tiles_of(scene(), TWO), *tiles_of(scene(50, 60), TWO)]
    empty, found = merge_tiles(
        DETECTION,
        (predicted(t, [[1, 2, 3, 4]], [0.5]) if t.height == 50 else predicted(t, [], []) for t in tiles),
    )
    assert len(empty.boxes_xyxy_N4) == 0
    assert found.boxes_xyxy_N4.tolist() == [[1, 2, 3, 4]]


def test_tiles_are_cut_from_the_picture(shards):
    made = batches(
        shards, "dec", micro_batch=5, tiles=Tiling(rows=2, columns=2, overlap=8), image_size=(64, 64)
    )
    assert all(b.targets is None for b in made)
    samples = [s for b in made for s in b.samples]
    assert len(samples) == 7 * 5 and all(isinstance(s, TileSample) for s in samples)
    assert [s.order for s in samples[::5]] == list(range(7))
    whole = batches(shards, "dec", micro_batch=1, image_size=(64, 64))
    assert torch.equal(made[0].images_BCHW[4], whole[0].images_BCHW[0])
