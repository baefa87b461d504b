"""Heads are built sharded and train on two ranks under ZeRO-3 as in one process.

The two ranks see different micro-batches, one with objects and one without: losses are divided by what a
micro-batch holds, so the mean over ranks must be the mean over micro-batches.
"""

import copy

import pytest
import torch
from torch import nn

from ufo_large.models.weights import fill
from ufo_large.structures import TaskBatch
from ufo_large.tasks import HEADS
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.scenes import scene_info, scene_of
from ufo_large.testing.tasks import PYRAMID_WIDTH, SMALL_DECODERS, TRUNK_WIDTH, features_for

RATE, STEPS, RANKS = 0.01, 2, 2
NAMES = [(kind, name) for kind, heads in HEADS.items() for name in heads]


class HeadOnly(nn.Module):
    def __init__(self, kind: str, name: str):
        super().__init__()
        torch.manual_seed(0)
        config = HEADS[kind][name].Config(**SMALL_DECODERS.get(name, {}))
        self.head = config.build(scene_info(kind), TRUNK_WIDTH, PYRAMID_WIDTH)

    def forward(self, batch: TaskBatch, seed: int) -> dict:
        torch.manual_seed(seed)  # Mask2Former draws points
        return self.head.losses(self.head(features_for(self.head, seed=seed)), batch)


def micro_batch(kind: str, rank: int) -> TaskBatch:
    """Return the scene's batch, on the second rank with nothing in it where that can be."""
    scene = scene_of(kind)
    return scene.batch(scene.empty if rank else None)


def train_sharded() -> dict:
    import deepspeed

    from ufo_large.distributed import zero
    from ufo_large.distributed.ds_config import complete

    zero.init_distributed()
    rank = torch.distributed.get_rank()
    config = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
    config = complete(config, micro_batch=3, clip_norm=None)
    found = {}
    for kind, name in NAMES:
        whole = HeadOnly(kind, name)
        with deepspeed.zero.Init(config_dict_or_path=config):
            model = HeadOnly(kind, name)
        assert all(p.numel() == 0 for p in model.parameters())
        fill(model, ((n, p.detach()) for n, p in whole.named_parameters()), lambda p: zero.gathered(p, True))
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=copy.deepcopy(config))
        for step in range(STEPS):
            losses = engine(micro_batch(kind, rank), seed=10 * step + rank)
            engine.backward(sum(losses.values()))
            engine.step()
        found[name] = {k: v.item() for k, v in losses.items()}
    return found


def train_plainly(kind: str, name: str) -> list[dict]:
    model = HeadOnly(kind, name)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for step in range(STEPS):
        both = [model(micro_batch(kind, rank), seed=10 * step + rank) for rank in range(RANKS)]
        optimizer.zero_grad()
        (sum(sum(losses.values()) for losses in both) / RANKS).backward()
        optimizer.step()
    return [{k: v.item() for k, v in losses.items()} for losses in both]


@pytest.fixture(scope="module")
def sharded() -> list[dict]:
    return run_ranks(train_sharded, RANKS)


@pytest.mark.parametrize("kind,name", NAMES)
def test_two_ranks_under_zero3_equal_two_micro_batches(sharded, kind, name):
    for rank, expected in enumerate(train_plainly(kind, name)):
        for loss, value in expected.items():
            # Measured relative difference 1e-7.
            assert sharded[rank][name][loss] == pytest.approx(value, rel=1e-5, abs=1e-7), (rank, loss)
