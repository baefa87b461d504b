"""Layer-wise rates and weight decay of a routed trunk, against timm's own groups of the dense model."""

import pytest
from timm.optim import param_groups_layer_decay

from ufo_large.models.weights import dense_names
from ufo_large.routing import ROUTERS
from ufo_large.runs.optimizer import OptimizerConfig, parameter_groups
from ufo_large.structures import role_of
from ufo_large.testing.models import ROUTED, TINY_TASKS, tiny_model

FAMILIES = {
    "vit": {},
    "dinov2": {"name": "vit_giant_patch14_reg4_dinov2"},
    "eva": {"name": "eva_giant_patch14_224"},
}


@pytest.mark.parametrize("router", ROUTED)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_is_treated_as_timm_treats_the_original(family, router):
    model = tiny_model(router, **FAMILIES[family]).build(TINY_TASKS)
    config = OptimizerConfig(learning_rate=1.0, weight_decay=0.1, layer_decay=0.5, layer_bins=100)
    ours = {
        p: (group["weight_decay"], group["rate_scale"])
        for group in parameter_groups(model, config)
        for p in group["params"]
    }
    vit = model.trunk.config.build_vit()
    vit.reset_classifier(3)  # timm's topmost layer, as our heads are
    listed = list(vit.no_weight_decay())
    theirs = {
        p: (group["weight_decay"], group["lr_scale"])
        for group in param_groups_layer_decay(vit, 0.1, listed, layer_decay=0.5)
        for p in group["params"]
    }
    assert set(ours) == set(model.parameters())
    sources, dense = dense_names(model.trunk), dict(vit.named_parameters())
    for name, parameter in model.trunk.named_parameters():
        if name.startswith(("vit.norm.", "vit.fc_norm.")):  # BEiT's rule; timm adds them to the last block
            assert ours[parameter] == (0.0, 1.0)
        elif sources[name] is not None:
            assert ours[parameter] == theirs[dense[sources[name]]], name
    heads = {ours[p][1] for p in model.parameters() if role_of(p).kind == "head"}
    assert heads == {1.0}


def test_choices_have_one_rate_whatever_the_trunks_and_their_depth():
    model = tiny_model(ROUTERS["learned"].Config(choice_rate=0.02)).build(TINY_TASKS)
    config = OptimizerConfig(learning_rate=1e-4, layer_decay=0.5)
    choices = {p for bank in model.trunk.banks().values() for p in bank.choices.parameters()}
    rates = {
        (group["weight_decay"], group["rate_scale"] * config.learning_rate)
        for group in parameter_groups(model, config)
        for p in group["params"]
        if p in choices
    }
    assert rates == {(0.0, 0.02)}


def test_a_head_has_the_rate_of_its_task_or_kind():
    model = tiny_model("task").build(TINY_TASKS)
    rates = {"detection": 1.0, "seg": 3.0, "segmentation": 9.0}
    config = OptimizerConfig(learning_rate=1.0, head_rate=15.0, head_rates=rates)
    found = {
        (role_of(p).task, group["rate_scale"])
        for group in parameter_groups(model, config)
        for p in group["params"]
        if role_of(p).kind == "head"
    }
    assert found == {("cls", 15.0), ("dec", 1.0), ("seg", 3.0)}
    with pytest.raises(ValueError, match=r"head_rates.dec=0.0: must be positive"):
        OptimizerConfig(learning_rate=1.0, head_rates={"dec": 0.0})


@pytest.mark.parametrize("router", [name for name in ROUTERS if name != "shared"])
def test_what_one_task_alone_uses_in_a_bank_has_the_routers_rate(router):
    model = tiny_model(ROUTERS[router].Config(expert_rate=10.0)).build(TINY_TASKS)
    plain = tiny_model(ROUTERS[router].Config()).build(TINY_TASKS)
    config = OptimizerConfig(learning_rate=1.0, layer_decay=0.5, head_rate=3.0)
    names = dict(zip(model.parameters(), dict(plain.named_parameters()), strict=True))
    before = {
        name: group["rate_scale"]
        for name, p in plain.named_parameters()
        for group in parameter_groups(plain, config)
        if any(p is member for member in group["params"])
    }
    factors = {
        (role_of(p).kind, group["rate_scale"] / before[names[p]])
        for group in parameter_groups(model, config)
        for p in group["params"]
    }
    choices = {("expert", 1.0)} if router == "learned" else set()  # a rate of their own
    assert factors == {("shared", 1.0), ("head", 1.0), ("expert", 10.0)} | choices
    for wrong in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match=f"expert_rate={wrong}: must be positive"):
            ROUTERS[router].Config(expert_rate=wrong)
