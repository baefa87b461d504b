"""A DeepSpeed that is built otherwise is told apart, or done without."""

import os
import warnings
from types import SimpleNamespace

import pytest
import torch

from ufo_large.distributed import zero
from ufo_large.distributed.engine import keeping_options


def test_an_unknown_way_of_fetching_is_warned_of_once():
    offload = SimpleNamespace(param_coordinator="its own")  # lacks everything else
    with pytest.warns(UserWarning, match=r"gathers them one by one.*0\.19\.8") as seen:
        orders = zero._FetchOrders(offload)
        orders.use("cls")
    assert len(seen) == 1 and offload.param_coordinator == "its own"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        orders.use("cls")
        orders.use(None)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_gradients_kept_elsewhere_are_refused(stage):
    with pytest.raises(RuntimeError, match=rf"ZeRO stage {stage}.*install deepspeed==0\.19\.8"):
        zero.require_internals(SimpleNamespace(), stage)


def test_the_device_is_of_deepspeeds_kind_also_where_torch_sees_a_gpu(monkeypatch):
    """DS_ACCELERATOR=cpu, as in these tests, on a machine with a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(3, 11)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    threads = torch.get_num_threads()
    try:
        assert zero.init_distributed() == torch.device("cpu")
        assert torch.get_num_threads() == 2  # of the eight cores that this process may use
    finally:
        torch.set_num_threads(threads)


def test_a_fused_optimizer_finds_its_count_of_steps_beside_its_parameters():
    """Saved by an unfused one, it lies on the CPU; `meta` stands for the GPU."""
    saved = torch.optim.AdamW([torch.nn.Parameter(torch.randn(4))], fused=False)
    saved.param_groups[0]["params"][0].grad = torch.ones(4)
    saved.step()
    loaded = torch.optim.AdamW([torch.nn.Parameter(torch.randn(4))], fused=True)
    there = torch.nn.Parameter(torch.zeros(4, device="meta"))
    loaded.param_groups[0]["params"] = [there]
    with keeping_options(loaded):
        loaded.load_state_dict(saved.state_dict())
    assert loaded.param_groups[0]["fused"] and loaded.state[there]["step"].device == there.device
