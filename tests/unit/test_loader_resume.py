"""The training loader: exact coverage, exact resume, independence of workers, broken samples."""

import itertools
import json
import os
import shutil
import warnings
from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ufo_large.data import shards as shards_module
from ufo_large.data.batching import AspectBuckets, MultiScale, Tokens
from ufo_large.data.errors import DataError
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.sampler import RepeatFactor
from ufo_large.data.shards import ShardReplaced, ShardSet
from ufo_large.data.transforms import ClassificationTransform, DetectionTransform, SegmentationTransform
from ufo_large.structures import TaskBatch
from ufo_large.testing.tiny_shards import tiny_shards

AUGMENTED = {
    "cls": ClassificationTransform.Config(rand_augment=9, erasing=0.5),
    "dec": DetectionTransform.Config(mosaic=0.5, copy_paste=2, flip=0.5),
    "seg": SegmentationTransform.Config(),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    return ShardSet.open(tiny_shards(tmp_path_factory.mktemp("tiny"), count=11))


def loader(shards: ShardSet, task: str = "dec", rank: int = 0, world_size: int = 1, **options):
    defaults = {"micro_batch": 2, "image_size": (48, 64), "workers": 0, "transform": AUGMENTED[task]}
    config = LoaderConfig(**{**defaults, **options})
    tokens = Tokens(patch=8, width=48)
    return config.build(shards.split(task, "train"), shards.task(task), rank, world_size, 5, tokens)


def same(a: TaskBatch, b: TaskBatch) -> bool:
    if a.samples != b.samples or not torch.equal(a.images_BCHW, b.images_BCHW):
        return False
    fields = type(a.targets).__slots__
    pairs = [(getattr(a.targets, f), getattr(b.targets, f)) for f in fields]
    return torch.equal(a.sizes_B2, b.sizes_B2) and all(
        (x is None and y is None) or torch.equal(x, y) for x, y in pairs
    )


@pytest.mark.parametrize("task", ["cls", "dec", "seg"])
def test_resume_restores_the_next_batch_bitwise(shards, task):
    through = loader(shards, task)
    batches = list(itertools.islice(through, 12))
    stopped = loader(shards, task)
    for _ in range(5):
        next(stopped)
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = loader(shards, task)
    resumed.load_state_dict(state)
    assert resumed.epoch == stopped.epoch == pytest.approx(10 / 11)
    assert all(same(a, b) for a, b in zip(batches[5:], resumed, strict=False))
    assert not same(batches[0], batches[6])


def test_mixed_batches_resume_bitwise(shards):
    options = {"transform": ClassificationTransform.Config(mixup=0.8, cutmix=1.0)}
    batches = list(itertools.islice(loader(shards, "cls", **options), 8))
    resumed = loader(shards, "cls", **options)
    resumed.load_state_dict({**resumed.state_dict(), "offsets": [6], "steps": 3})
    assert batches[0].targets.soft_BK is not None
    assert all(same(a, b) for a, b in zip(batches[3:], resumed, strict=False))


def test_workers_change_nothing(shards):
    """Batches from two workers equal those of none, and the state ignores what the workers prefetched."""
    alone, working = loader(shards), loader(shards, workers=2)
    assert all(same(next(alone), next(working)) for _ in range(7))
    assert alone.state_dict() == working.state_dict()
    working.load_state_dict(alone.state_dict())
    assert same(next(alone), next(working))
    working.close()


@pytest.mark.parametrize(
    "shapes",
    [
        AspectBuckets.Config(max_buckets=3, min_samples=2),
        MultiScale.Config(scales=(0.5, 1.0)),
    ],
)
def test_ranks_share_a_shape_and_resume_it(shards, shapes):
    """Two ranks have the same canvas at each step, an epoch is covered, and a stop changes nothing."""
    ranks = [loader(shards, rank=r, world_size=2, shapes=shapes) for r in range(2)]
    steps = [[next(rank) for rank in ranks] for _ in range(9)]
    assert all(a.images_BCHW.shape == b.images_BCHW.shape for a, b in steps)
    assert len({a.images_BCHW.shape for a, _ in steps}) > 1
    seen = Counter(s.order for pair in steps for batch in pair for s in batch.samples)
    assert sum(rank.canvases.total() for rank in ranks) == seen.total()
    assert len(seen) == 11
    resumed = loader(shards, rank=1, world_size=2, shapes=shapes)
    resumed.load_state_dict(_state_after(shards, shapes, 7))
    assert all(same(step[1], batch) for step, batch in zip(steps[7:], resumed, strict=False))


def _state_after(shards, shapes, steps: int) -> dict:
    stopped = loader(shards, rank=0, world_size=2, shapes=shapes)
    for _ in range(steps):
        next(stopped)
    return stopped.state_dict()


def test_model_rng_is_left_alone(shards):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for task in ("cls", "dec", "seg"):
        next(loader(shards, task))
    assert torch.equal(before, torch.get_rng_state())


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 4)), min_size=1, max_size=4))
def test_ranks_share_an_epoch_through_changes_of_world_size(shards, stretches):
    """After any stops on any world sizes: no sample lost, none seen twice, each image as on one rank."""
    single = loader(shards, micro_batch=1)
    state, seen = single.state_dict(), []
    for world_size, micro_batch, steps in stretches:
        ranks = [
            loader(shards, rank=r, world_size=world_size, micro_batch=micro_batch) for r in range(world_size)
        ]
        for rank in ranks:
            rank.load_state_dict(state)
        for _ in range(steps):
            for rank in ranks:
                batch = next(rank)
                seen += [(s.key, batch.images_BCHW[i]) for i, s in enumerate(batch.samples)]
        assert all(rank.state_dict() == ranks[0].state_dict() for rank in ranks)
        state = ranks[0].state_dict()
    expected = [(batch.samples[0].key, batch.images_BCHW[0]) for batch in itertools.islice(single, len(seen))]
    assert [key for key, _ in seen] == [key for key, _ in expected]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(seen, expected, strict=True))


def test_state_of_other_data_or_sampling_is_refused(shards):
    state = loader(shards, "dec").state_dict()
    with pytest.raises(ValueError, match="other data"):
        loader(shards, "cls").load_state_dict(state)
    with pytest.raises(ValueError, match="other data"):
        loader(shards, "dec", sampling=RepeatFactor.Config()).load_state_dict(state)


def test_transform_of_another_task_is_refused(shards):
    with pytest.raises(ValueError, match="'dec' is detection, but its transform is for segmentation"):
        loader(shards, "dec", transform=SegmentationTransform.Config())


@pytest.fixture
def broken(tmp_path) -> ShardSet:
    """Three classification samples have other bytes than sharding wrote."""
    folder = tiny_shards(tmp_path, count=11)
    reader = ShardSet.open(folder).split("cls", "train")
    for index in (2, 5, 7):
        path = reader.shard_of(index)
        times = os.stat(path)
        with open(path, "r+b") as file:
            file.seek(int(reader._rows["image_offsets"][index]))
            file.write(b"not a picture")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return ShardSet.open(folder)


def test_broken_samples_are_replaced_counted_and_reported(broken):
    runs = []
    for workers in (0, 1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stream = loader(broken, "cls", workers=workers, max_bad_samples=3)
            runs.append(list(itertools.islice(stream, 11)))
            assert stream.bad_samples == 3
            messages = [str(w.message) for w in caught if "broken sample" in str(w.message)]
            stream.close()
        assert len(messages) == 3
        assert all("not those that were written" in m and "cls/train-" in m and ".png" in m for m in messages)
    assert all(same(a, b) for a, b in zip(*runs, strict=True))
    shown = {s.file_name for batch in runs[0] for s in batch.samples}
    assert len(shown) == 8


@pytest.mark.filterwarnings("ignore:skipped a broken sample")
def test_too_many_broken_samples_stop(broken):
    with pytest.raises(ValueError, match=r"3 broken samples, max_bad_samples allows 2(.|\n)*train-000000"):
        list(itertools.islice(loader(broken, "cls", max_bad_samples=2), 11))


def test_a_replaced_shard_is_named(tmp_path, monkeypatch):
    """Another file under the name is seen at the next check of names."""
    monkeypatch.setattr(shards_module, "NAME_CHECK_S", 0.0)
    stream = loader(ShardSet.open(tiny_shards(tmp_path)), "dec")
    next(stream)
    path = stream.maker.reader.shard_of(0)
    os.replace(shutil.copy(path, tmp_path / "new"), path)
    with pytest.raises(ShardReplaced, match="dec/train-000000.tar.*replaced"):
        list(itertools.islice(stream, 12))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_finds_wrong_is_told_in_one_line(tmp_path, workers):
    """torch's DataLoader would wrap the message into the worker's traceback."""
    stream = loader(ShardSet.open(tiny_shards(tmp_path)), "dec", workers=workers)
    path = stream.maker.reader.shard_of(0)
    os.truncate(path, os.path.getsize(path) - 512)
    with pytest.raises(DataError, match=r"^\S+dec/train-000000.tar: \d+ bytes, \d+ expected") as stop:
        list(itertools.islice(stream, 12))
    assert "Traceback" not in str(stop.value)
    stream.close()


def test_a_rewritten_shard_is_named(tmp_path):
    reader = ShardSet.open(tiny_shards(tmp_path)).split("cls", "train")
    reader.read(0)
    with open(reader.shard_of(0), "r+b") as file:
        file.seek(600)
        file.write(b"x")
    with pytest.raises(ShardReplaced, match="cls/train-000000.tar.*replaced"):
        reader.read(1)


def test_a_cut_shard_is_named(tmp_path):
    shards = ShardSet.open(tiny_shards(tmp_path))
    path = shards.split("seg", "train").shard_of(0)
    os.truncate(path, os.path.getsize(path) - 512)
    with pytest.raises(ShardReplaced, match="seg/train-000000.tar: .* bytes, .* expected"):
        shards.split("seg", "train")


def test_a_cut_shard_is_a_plain_error_for_the_user(tmp_path):
    """The scripts print ValueErrors as one line; this one stops training before it begins."""
    folder = tiny_shards(tmp_path)
    with open(folder / "seg/train-000000.tar", "r+b") as file:
        file.truncate(1024)
    with pytest.raises(ValueError, match="seg/train-000000.tar: 1024 bytes, .* expected"):
        ShardSet.open(folder).split("seg", "train")
