"""A frozen trunk: it computes as for predictions and nothing of it moves; heads learn."""

import pytest
import torch

from ufo_large.distributed.engine import PlainEngine
from ufo_large.models.lora import LoraConfig
from ufo_large.models.weights import fill, initial_state
from ufo_large.runs.optimizer import OptimizerConfig
from ufo_large.testing.models import TINY_TASKS, step_of_all, tiny_batch, tiny_model


@pytest.mark.parametrize("router", ["shared", "task", "learned", "residual"])
def test_only_heads_and_pyramids_move(router):
    model = tiny_model(router, frozen=True).build(TINY_TASKS).train()
    fill(model, initial_state(model, seed=0))
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = OptimizerConfig(learning_rate=1e-2).build(model)
    engine = PlainEngine(model, optimizer, torch.device("cpu"), 1.0)
    rates = [group["rate_scale"] * 1e-2 for group in optimizer.param_groups]
    measured = step_of_all(engine, rates, (1.0, 1.0, 1.0))
    assert measured.gram_MM.eq(0).all() and measured.private_M.gt(0).all()
    for name, value in model.named_parameters():
        if name.startswith("trunk."):
            assert torch.equal(value, before[name]), name
    heads = [name for name in before if not name.startswith("trunk.")]
    moved = dict(model.named_parameters())
    assert sum(not torch.equal(moved[name], before[name]) for name in heads) > len(heads) / 2


def test_training_and_predicting_compute_the_same():
    model = tiny_model("learned", frozen=True).build(TINY_TASKS)
    batch = tiny_batch(TINY_TASKS[0])
    first, again = (model.train(mode).outputs(batch)["logits_BK"] for mode in (True, False))
    assert torch.equal(first, again) and first.requires_grad


def test_what_would_have_no_effect_is_refused():
    with pytest.raises(ValueError, match=r"trunk\.frozen trains nothing.*lora=none.*drop_path=0"):
        tiny_model("task", frozen=True, lora=LoraConfig(rank=2))
