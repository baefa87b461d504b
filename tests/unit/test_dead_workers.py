"""A loader's worker that is killed: the batches afterwards are the same bits, and a second death is told."""

import itertools
import multiprocessing
import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader

from ufo_large.data.batching import Tokens
from ufo_large.data.errors import DataError
from ufo_large.data.evaluation_batches import evaluation_batches
from ufo_large.data.loader import LoaderConfig, TaskLoader
from ufo_large.data.shards import ShardSet
from ufo_large.data.transforms import DetectionTransform
from ufo_large.data.workers import Workers
from ufo_large.testing.tiny_shards import tiny_shards

REPLACED = r"the loader of task 'dec': worker process \d+ was ended by SIGKILL; its batches are made again"
TOLD = r"^the loader of task 'dec': worker process \d+ was ended by SIGKILL, after worker process \d+ was"


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    return ShardSet.open(tiny_shards(tmp_path_factory.mktemp("tiny"), count=11))


def loader(shards: ShardSet, workers: int) -> TaskLoader:
    transform = DetectionTransform.Config(mosaic=0.5, copy_paste=2, flip=0.5)
    config = LoaderConfig(micro_batch=2, image_size=(96, 160), workers=workers, transform=transform)
    return config.build(shards.split("dec", "train"), shards.task("dec"), 0, 1, 5, Tokens(patch=8, width=48))


def kill_one() -> None:
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


def test_no_sample_is_lost_or_comes_twice(shards):
    undisturbed = list(itertools.islice(loader(shards, workers=0), 24))
    stream = loader(shards, workers=2)
    found = list(itertools.islice(stream, 3))
    with pytest.warns(UserWarning, match=REPLACED):
        kill_one()
        found += itertools.islice(stream, 17)
    resumed = loader(shards, workers=0)
    resumed.load_state_dict(stream.state_dict())
    stream.close()
    found += itertools.islice(resumed, 4)
    for a, b in zip(undisturbed, found, strict=True):
        assert a.samples == b.samples and torch.equal(a.images_BCHW, b.images_BCHW)
        assert torch.equal(a.targets.boxes_xyxy_N4, b.targets.boxes_xyxy_N4)
        assert torch.equal(a.targets.labels_N, b.targets.labels_N)


@pytest.mark.filterwarnings("ignore:the loader of task")
def test_a_second_death_is_told(shards):
    stream = loader(shards, workers=1)
    next(stream)
    with pytest.raises(DataError, match=TOLD + " ended by SIGKILL and was replaced.*memory"):
        for _ in range(2):
            kill_one()
            list(itertools.islice(stream, 5))
    assert not multiprocessing.active_children()


def test_a_message_that_was_half_sent_stops_nothing():
    """A worker is killed while it waits for room in the pipe, so that what the reader reads never ends."""
    workers, taken = Workers("the test"), []
    numbers = [bytes([i]) * (1 << 20) for i in range(8)]
    rest = lambda: DataLoader(numbers[len(taken) :], batch_size=None, num_workers=1)
    taken.append(workers.take(rest))
    time.sleep(0.5)
    with pytest.warns(UserWarning, match="made again by new workers"):
        kill_one()
        while len(taken) < len(numbers):
            taken.append(workers.take(rest))
    workers.close()
    assert taken == numbers


def test_evaluation_goes_on_too(shards):
    options = {"image_size": (48, 64), "micro_batch": 1, "rank": 0, "world_size": 1}
    reader, info = shards.split("dec", "train"), shards.task("dec")
    undisturbed = list(evaluation_batches(reader, info, **options))
    batches = evaluation_batches(reader, info, **options, workers=2)
    found = [next(batches)]
    with pytest.warns(UserWarning, match="evaluation of task 'dec'.* made again"):
        kill_one()
        found += batches
    assert [b.samples for b in found] == [b.samples for b in undisturbed]
    assert all(torch.equal(a.images_BCHW, b.images_BCHW) for a, b in zip(found, undisturbed, strict=True))
