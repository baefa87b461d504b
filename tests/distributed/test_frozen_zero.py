"""A trunk that is frozen, or its first blocks, under ZeRO: the rest learns as in one process."""

import numpy as np
import pytest
import torch

from ufo_large.models.weights import fill, initial_state
from ufo_large.routing import ROUTERS
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.models import TINY_TASKS, step_of_all, tiny_model

RATE = 0.1
ROUTER = ROUTERS["learned"].Config(blocks=(1,))


def trained(stage: int, trunk: dict) -> dict[str, np.ndarray]:
    """Return the weights after two steps on the same batches on every rank."""
    from ufo_large.distributed import zero
    from ufo_large.distributed.ds_config import complete
    from ufo_large.distributed.engine import PlainEngine

    device = zero.init_distributed()
    options = {"stage3_param_persistence_threshold": 0} if stage == 3 else {}
    ds = complete({"zero_optimization": {"stage": stage, **options}}, 2, clip_norm=None)
    with zero.sharded_construction(ds if stage else None):
        model = tiny_model(ROUTER, **trunk).build(TINY_TASKS)
    fill(model, initial_state(model, 0), lambda p: zero.gathered(p, modify=True))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
    engine = (
        zero.ZeroEngine(model, optimizer, ds, model.units())
        if stage
        else PlainEngine(model, optimizer, device)
    )
    engine.module.train()
    for step in range(2):
        step_of_all(engine, [RATE], (1.0, 1.0, 1.0), seed=step)
    return {name: value.numpy() for name, value in engine.full_parameters()}


@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize(
    ("trunk", "still"),
    [
        ({"depth": 2, "frozen": True}, ("trunk.",)),
        ({"depth": 3, "frozen_blocks": 1}, ("trunk.vit.blocks.0", "trunk.vit.pos_embed", "trunk.vit.patch")),
    ],
)
def test_two_ranks_learn_what_one_process_learns(stage, trunk, still):
    (alone,) = run_ranks(trained, 1, 0, trunk)
    first, _ = run_ranks(trained, 2, stage, trunk)
    start = dict(initial_state(tiny_model(ROUTER, **trunk).build(TINY_TASKS), 0))
    moved = {n for n, v in start.items() if n in alone and not np.array_equal(v.numpy(), alone[n])}
    assert moved and not any(name.startswith(still) for name in moved)
    assert first.keys() == alone.keys()
    for name, value in alone.items():
        np.testing.assert_allclose(first[name], value, atol=2e-6, err_msg=name)
