"""The attention kernel tried first: which calls a step has, which kernel wins, what torch is told.

On a processor: when attention is two matrix products instead, and that it stays the same function.
"""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend

from ufo_large.data.loader import LoaderConfig
from ufo_large.models import MultitaskModel
from ufo_large.recipes import load_recipe
from ufo_large.routing import ROUTERS
from ufo_large.runs.config import RunConfig, TaskConfig
from ufo_large.structures import TaskInfo
from ufo_large.tasks import HEADS
from ufo_large.testing.models import task_info, tiny_trunk
from ufo_large.train import attention_products
from ufo_large.train.attention_kernels import (
    KERNELS,
    Call,
    calls_of,
    fastest_attention,
    preferring,
    step_seconds,
    told,
)
from ufo_large.train.attention_products import choose_products, products_are_faster, use_products

SHORT = Call((4, 2, 10, 32), (4, 2, 10, 32), None)
MASKED = Call((4, 2, 12, 32), (4, 2, 12, 32), (4, 1, 12, 12))


@pytest.fixture
def small() -> tuple[RunConfig, tuple[TaskInfo, ...]]:
    """A routed trunk of 2 blocks, 3 heads of 16; images of two tasks with sides in whole patches of 14."""
    tasks = (task_info("cls", "classification", 5), task_info("seg", "segmentation", 5))
    heads = {
        "classification": HEADS["classification"]["linear"].Config(),
        "segmentation": HEADS["segmentation"]["dense"].Config(strides=(8, 16)),
    }
    trunk = tiny_trunk("task", depth=2, patch_size=14, img_size=28)
    loaders = {
        "classification": LoaderConfig(micro_batch=4, image_size=(28, 42)),
        "segmentation": LoaderConfig(micro_batch=3, image_size=(56, 28)),
    }
    config = replace(
        load_recipe("small"),
        model=MultitaskModel.Config(trunk=trunk, heads=heads, pyramid_width=16),
        tasks={kind: TaskConfig(loader=loader) for kind, loader in loaders.items()},
    )
    return config, tasks


def measured(times: dict) -> dict[str, float]:
    calls = {SHORT: 3, MASKED: 1}
    return step_seconds(calls, lambda call, kernel: times[call].get(kernel))


@pytest.mark.parametrize("router", ROUTERS)
def test_calls_count_per_task_and_with_the_prefix_tokens(router, small):
    """By hand: 2 blocks; patches of 14 on 28 x 42 and 56 x 28 pixels, one class token; in any routing."""
    config, tasks = small
    trunk = replace(config.model.trunk, router=ROUTERS[router].Config())
    config = replace(config, model=replace(config.model, trunk=trunk))
    assert calls_of(config, tasks) == {
        Call((4, 3, 7, 16), (4, 3, 7, 16), None): 2,
        Call((3, 3, 9, 16), (3, 3, 9, 16), None): 2,
    }


def test_the_fastest_kernel_over_all_calls_comes_first():
    """By hand: cudnn 3 * 1 + 9 = 12, flash 3 * 2 + 5 = 11 where it falls back, efficient 3 * 4 + 5 = 17."""
    cudnn, flash, efficient = KERNELS.values()
    found = measured({SHORT: {cudnn: 1.0, flash: 2.0, efficient: 4.0}, MASKED: {cudnn: 9.0, efficient: 5.0}})
    assert list(found.items()) == [("flash", 11.0), ("cudnn", 12.0), ("efficient", 17.0)]
    assert "flash first" in told(found) and "cudnn 12000.0" in told(found)


def test_a_kernel_that_takes_no_call_is_not_listed():
    assert measured({SHORT: {SDPBackend.EFFICIENT_ATTENTION: 1.0}, MASKED: {}}) == {"efficient": 3.0}
    assert measured({SHORT: {}, MASKED: {}}) == {}


def test_torch_tries_kernels_in_this_order_and_in_its_own_afterwards():
    before = torch._C._get_sdp_priority_order()
    with preferring({"efficient": 1.0, "cudnn": 2.0}):
        now = torch._C._get_sdp_priority_order()
        assert [SDPBackend(number).name.split("_")[0] for number in now[:4]] == [
            "EFFICIENT",
            "CUDNN",
            "FLASH",
            "MATH",
        ]
    assert torch._C._get_sdp_priority_order() == before
    with preferring({}):
        assert torch._C._get_sdp_priority_order() == before


def test_without_a_gpu_nothing_is_measured(small):
    assert fastest_attention(*small, torch.device("cpu"), torch.float32) == {}


AVX512 = frozenset({"avx2", "avx512f", "avx512_bf16"})


@pytest.mark.parametrize(
    ("dtype", "tokens", "flags", "faster"),
    [
        (torch.bfloat16, 433, AVX512, True),
        (torch.float32, 433, AVX512, False),
        (torch.bfloat16, 2738, AVX512, False),
        (torch.bfloat16, 433, AVX512 | {"amx_bf16"}, False),
        (torch.bfloat16, 433, {"avx2"}, False),
    ],
)
def test_products_only_in_bfloat16_where_avx512_multiplies_it(dtype, tokens, flags, faster):
    assert products_are_faster(dtype, tokens, flags) == faster


@pytest.fixture
def avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_products, "processor_flags", lambda: AVX512)


def chosen(small, device: str, dtype: torch.dtype) -> tuple[bool, bool]:
    """Return whether products were chosen, and whether the trunk's attention still calls torch's kernel."""
    trunk = small[0].model.build(small[1]).trunk
    answer = choose_products(trunk, *small, torch.device(device), dtype)
    return answer, all(m.fused_attn for m in trunk.modules() if hasattr(m, "fused_attn"))


def test_a_run_in_bfloat16_multiplies_and_others_call_the_kernel(small, avx512):
    assert chosen(small, "cpu", torch.bfloat16) == (True, False)
    assert chosen(small, "cpu", torch.float32) == (False, True)
    assert chosen(small, "cuda", torch.bfloat16) == (False, True)


def test_the_largest_image_decides(small, avx512, monkeypatch):
    """By hand: 9 tokens of 56 x 28 pixels, patches of 14 and a class token."""
    monkeypatch.setattr(attention_products, "LONGEST", 8)
    assert chosen(small, "cpu", torch.bfloat16) == (False, True)
    monkeypatch.setattr(attention_products, "LONGEST", 9)
    assert chosen(small, "cpu", torch.bfloat16) == (True, False)


def test_products_are_the_kernels_function(small):
    config, tasks = small
    trunk = config.model.build(tasks).trunk.double().eval()
    images_BCHW = torch.randn(2, 3, 28, 42, dtype=torch.float64)

    def features_and_gradients() -> list[torch.Tensor]:
        pooled_BD = trunk(images_BCHW, torch.tensor([[28, 42]] * 2), "cls").pooled_BD
        used = [p for p in trunk.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(pooled_BD.square().sum(), used, allow_unused=True)
        return [pooled_BD, *(g for g in gradients if g is not None)]

    fused = features_and_gradients()
    use_products(trunk)
    for ours, torchs in zip(features_and_gradients(), fused, strict=True):
        torch.testing.assert_close(ours, torchs)
