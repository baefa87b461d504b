"""The attention kernel tried first: which calls a step has, which kernel wins, what torch is told."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend

from ufo_large.data.loader import LoaderConfig
from ufo_large.models import MultitaskModel
from ufo_large.recipes import load_recipe
from ufo_large.runs.config import RunConfig, TaskConfig
from ufo_large.structures import TaskInfo
from ufo_large.tasks import HEADS
from ufo_large.testing.models import task_info, tiny_trunk
from ufo_large.train.attention_kernels import (
    KERNELS,
    Call,
    calls_of,
    fastest_attention,
    preferring,
    step_seconds,
    told,
)

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


def test_calls_count_per_task_and_with_the_prefix_tokens(small):
    """By hand: 2 blocks; patches of 14 on 28 x 42 and 56 x 28 pixels, one class token."""
    assert calls_of(*small) == {
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
