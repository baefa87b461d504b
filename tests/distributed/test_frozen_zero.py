"""A frozen trunk under ZeRO: heads and pyramids learn what they learn on one process, nothing else moves."""

import numpy as np
import pytest
import torch

from ufo_large.models.weights import fill, initial_state
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.models import TINY_TASKS, step_of_all, tiny_model

RATE = 0.1


def trained(stage: int) -> dict[str, np.ndarray]:
    """Return the weights after two steps on the same batches on every rank."""
    from ufo_large.distributed import zero
    from ufo_large.distributed.ds_config import complete
    from ufo_large.distributed.engine import PlainEngine

    device = zero.init_distributed()
    options = {"stage3_param_persistence_threshold": 0} if stage == 3 else {}
    ds = complete({"zero_optimization": {"stage": stage, **options}}, 2, clip_norm=None)
    with zero.sharded_construction(ds if stage else None):
        model = tiny_model("learned", depth=2, frozen=True).build(TINY_TASKS)
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
def test_two_ranks_learn_what_one_process_learns(stage):
    (alone,) = run_ranks(trained, 1, 0)
    first, _ = run_ranks(trained, 2, stage)
    start = dict(initial_state(tiny_model("learned", depth=2, frozen=True).build(TINY_TASKS), 0))
    moved = {n for n, v in start.items() if n in alone and not np.array_equal(v.numpy(), alone[n])}
    assert moved and not any(name.startswith("trunk.") for name in moved)
    assert first.keys() == alone.keys()
    for name, value in alone.items():
        np.testing.assert_allclose(first[name], value, atol=2e-6, err_msg=name)
