"""LoRA in one process: where adapters go, what they change, what is refused, and how they are merged away."""

from dataclasses import replace

import pytest
import torch

from ufo_large.models import Trunk
from ufo_large.models.extract import dense_trunk_state
from ufo_large.models.lora import LoraConfig, is_adapter, merge_lora
from ufo_large.models.weights import dense_names, fill, trunk_values
from ufo_large.planning.sizes import count
from ufo_large.recipes import load_recipe
from ufo_large.routing import ROUTERS
from ufo_large.runs.folder import RunFolder
from ufo_large.runs.optimizer import OptimizerConfig, parameter_groups
from ufo_large.testing.models import TINY_TASKS, tiny_model, tiny_trunk
from ufo_large.train.run import prepare

TASKS = ("a", "b")
FAMILIES = {
    "vit": {},
    "eva": {"name": "eva_giant_patch14_224", "patch_size": 14, "img_size": 42},
    "swiglu": {"name": "vit_giant_patch14_dinov2", "patch_size": 14, "img_size": 42},
}


def pair(router: str, **options) -> tuple[Trunk, Trunk, torch.nn.Module]:
    """Return (trunk without, trunk with adapters, timm's dense model), all of the same dense weights."""
    torch.manual_seed(0)
    vit = tiny_trunk("shared", depth=2, **options).build_vit()
    values = dict(vit.named_parameters())
    trunks = []
    for lora in (None, LoraConfig(rank=3)):
        trunk = tiny_trunk(router, depth=2, lora=lora, **options).build(TASKS)
        fill(trunk, trunk_values(trunk, values.__getitem__, 0))
        trunks.append(trunk.eval())
    return *trunks, vit.eval()


def pooled(trunk: Trunk) -> torch.Tensor:
    size = 3 * trunk.stride
    images = torch.arange(3 * size * size).remainder(251).view(1, 3, size, size).to(torch.uint8)
    return trunk(images, torch.tensor([[size, size]]), "a").pooled_BD


@pytest.mark.parametrize("router", ["shared", "learned", "task", "residual"])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_changes_before_the_first_step(family, router):
    """Allowed 1e-5: Eva adds the bias of its attention apart, which rounds otherwise."""
    plain, adapted, _ = pair(router, **FAMILIES[family])
    torch.testing.assert_close(pooled(adapted), pooled(plain), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("router", "place"), [("learned, all parts", ".attn.shared."), ("residual", ".mlp.shared.")]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_adapter_of_a_routed_trunk_has_an_effect(family, router, place):
    """Also of the shared module that a bank holds beside the tasks' own."""
    _, adapted, _ = pair(router, **FAMILIES[family])
    pooled(adapted).square().sum().backward()
    found = {n: p.grad for n, p in adapted.named_parameters() if "lora_B" in n}
    assert any(place in n for n in found)
    assert not [n for n, grad in found.items() if grad is None or not grad.abs().max() > 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_adapter_has_an_effect_and_merging_keeps_it(family):
    """The merged network, in timm's names, computes what the adapted trunk does; allowed 1e-4."""
    _, adapted, vit = pair("shared", **FAMILIES[family])
    pooled(adapted).square().sum().backward()
    for name, parameter in adapted.named_parameters():
        assert parameter.requires_grad == is_adapter(name)
        if "lora_B" in name:
            assert parameter.grad.abs().max() > 0, name
            torch.nn.init.normal_(parameter.data, std=0.02)
    before = pooled(adapted)
    with pytest.raises(ValueError, match="merge_lora"):
        dense_trunk_state(adapted, "a")
    merge_lora(adapted)
    torch.testing.assert_close(pooled(adapted), before, atol=1e-4, rtol=0)
    assert not any(is_adapter(n) for n, _ in adapted.named_parameters())
    vit.load_state_dict(dense_trunk_state(adapted, "a"))


def test_merged_adapters_and_an_expert_are_one_dense_mlp():
    """Adapters on the shared MLP, an expert beside it. Allowed 1e-4."""
    _, adapted, _ = pair("residual")
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or ".experts." in name:
            torch.nn.init.normal_(parameter.data, std=0.02)
    before = pooled(adapted)
    merge_lora(adapted)
    for place, bank in adapted.banks().items():
        adapted.vit.set_submodule(place, bank.path("a"))
    torch.testing.assert_close(pooled(adapted), before, atol=1e-4, rtol=0)


def test_pretrained_names_are_those_of_the_dense_model():
    _, adapted, vit = pair("shared")
    sources = [s for s in dense_names(adapted).values() if s is not None]
    assert sorted(sources) == sorted(n for n, _ in vit.named_parameters())


def test_adapters_are_counted_by_hand_and_optimized():
    """Two blocks of width 48: qkv, proj, fc1 and fc2 of rank 3 add 3 (48 + 144 + 48 + 48 + 2 (48 + 192))."""
    plain, adapted, _ = pair("shared")
    expected = 2 * 3 * (48 + 144 + 48 + 48 + 2 * (48 + 192))
    assert count(adapted) - count(plain) == expected
    model = tiny_model("shared", depth=2, lora=LoraConfig(rank=3)).build(TINY_TASKS)
    groups = parameter_groups(model, OptimizerConfig(learning_rate=1e-3))
    claimed = {p for group in groups for p in group["params"]}
    trunk = [p for p in model.trunk.parameters() if p in claimed]
    assert sum(p.numel() for p in trunk) == expected
    assert claimed == {p for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0}, "at least 1"),
        ({"alpha": 0.0}, "positive"),
        ({"targets": ("mpl",)}, "mlp"),
        ({"targets": ()}, "each once"),
    ],
)
def test_senseless_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        LoraConfig(**options)


def test_senseless_combinations_are_refused():
    with pytest.raises(ValueError, match="token_topk"):
        tiny_trunk("token_topk", lora=LoraConfig())
    everywhere = ROUTERS["task"].Config(blocks=(0, 1, 2, 3))
    with pytest.raises(ValueError, match="tasks share"):
        tiny_trunk(everywhere, lora=LoraConfig(targets=("mlp",))).build(TASKS)
    with pytest.raises(ValueError, match="full rank of 48"):
        tiny_trunk("shared", lora=LoraConfig(rank=48)).build(TASKS)
    with pytest.raises(ValueError, match="merge_lora"):
        tiny_trunk("learned", lora=LoraConfig()).build(TASKS).add_task("c")


@pytest.mark.parametrize(
    ("trunk", "off"),
    [
        ({"lora": LoraConfig()}, "lora=none"),
        ({"frozen": True}, "frozen=f"),
        ({"frozen_blocks": 2}, "frozen_"),
    ],
)
def test_random_weights_are_not_frozen(tiny_shards, tmp_path, trunk, off):
    config = load_recipe("demo")
    config = replace(config, ds="none", model=replace(config.model, trunk=tiny_trunk("shared", **trunk)))
    with pytest.raises(ValueError, match=f"random here: give --set pretrained=hub.*trunk.{off}"):
        prepare(config, str(tiny_shards), RunFolder(tmp_path), None, "none")
    given = replace(config, pretrained="vit.safetensors")
    assert len(prepare(given, str(tiny_shards), RunFolder(tmp_path), None, "none")[1]) == 3
