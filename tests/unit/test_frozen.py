"""A frozen trunk: it computes as for predictions and nothing of it moves; heads learn."""

import pytest
import torch

from ufo_large.distributed.engine import PlainEngine
from ufo_large.models.lora import LoraConfig
from ufo_large.models.weights import fill, initial_state
from ufo_large.routing import ROUTERS
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


@pytest.mark.parametrize("router", ["shared", "learned"])
def test_frozen_first_blocks_leave_the_gradients_of_the_others_as_they_are(router):
    routed = ROUTERS[router].Config(blocks=(2, 3)) if router != "shared" else router
    grads = []
    for count in (0, 2):
        model = tiny_model(routed, frozen_blocks=count).build(TINY_TASKS)
        fill(model, initial_state(model, seed=0))
        for info in TINY_TASKS:
            batch = tiny_batch(info)
            sum(model(batch).values()).backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    whole, upper = grads
    below = ("patch_embed", "cls_token", "pos_embed", "blocks.0.", "blocks.1.")
    left = {name for name in whole if not name.startswith(tuple(f"trunk.vit.{b}" for b in below))}
    assert upper.keys() == left and len(left) < len(whole)
    for name, grad in upper.items():
        assert torch.equal(grad, whole[name]), name


def test_frozen_first_blocks_drop_no_paths():
    model = tiny_model("shared", frozen_blocks=3, drop_path=0.5).build(TINY_TASKS).train()
    assert [block.training for block in model.trunk.vit.blocks] == [False, False, False, True]
    assert not any(block.training for block in model.eval().trunk.vit.blocks)


@pytest.mark.parametrize(
    ("trunk", "told"),
    [
        ({"frozen_blocks": -1}, "frozen_blocks=-1: must be 0"),
        ({"frozen_blocks": 2, "frozen": True}, "freeze all blocks by themselves"),
        ({"frozen_blocks": 4}, "the trunk has 4 blocks.*trunk.frozen=true"),
        ({"frozen_blocks": 3}, r"experts of blocks\.2\.mlp would not learn; set trunk\.router\.blocks"),
    ],
)
def test_frozen_first_blocks_that_would_have_no_effect_are_refused(trunk, told):
    router = ROUTERS["task"].Config(blocks=(2, 3))
    with pytest.raises(ValueError, match=told):
        tiny_model(router, **trunk).build(TINY_TASKS)


def test_what_would_have_no_effect_is_refused():
    with pytest.raises(ValueError, match=r"trunk\.frozen trains nothing.*lora=none.*drop_path=0"):
        tiny_model("task", frozen=True, lora=LoraConfig(rank=2))
