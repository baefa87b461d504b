"""What a step logs of its speed: images, tokens, operations, their share of a GPU's peak, and waiting."""

import time
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from ufo_large.planning.peaks import peak_of
from ufo_large.testing.models import TINY_TASKS, tiny_model
from ufo_large.tracking.console import speed_text
from ufo_large.train import collective_waits
from ufo_large.train.collective_waits import CollectiveWaits, _Look
from ufo_large.train.speed import WARM_UP, ImageCosts, Speed
from ufo_large.train.task_clock import TaskClock

SMALL, WIDE = (32, 32), (32, 64)
SMALL_TOKENS, WIDE_TOKENS = 17, 33
"""A class token, and patches of 8 pixels."""


def speed_on(device="cpu", costs=None, **loaders):
    feeds = {task: SimpleNamespace(loader=loader) for task, loader in loaders.items()}
    engine = SimpleNamespace(device=torch.device(device))
    runner = SimpleNamespace(feeds=feeds, engine=engine, world_size=2, clock=TaskClock(engine.device))
    return Speed(runner, CollectiveWaits(), costs)


def step_of(speed, a, b):
    """A step of 16 small and 2 wide images of `a` and none of `b` on this rank."""
    with speed.timing(), speed.runner.clock.of("a"):
        a.canvases.update({SMALL: 16, WIDE: 2})
        a.wait_s += 0.01
        b.wait_s += 0.01
        time.sleep(0.05)
    return speed.values


@pytest.fixture
def loaders():
    return {name: SimpleNamespace(wait_s=1.0, canvases=Counter({SMALL: 8})) for name in ("a", "b")}


def test_images_and_tokens_are_those_of_the_step_on_all_ranks(loaders):
    costs = ImageCosts(tiny_model("shared").build(TINY_TASKS))
    values = step_of(speed_on(costs=costs, **loaders), **loaders)
    seconds = values["train/step_seconds"]
    assert values["train/images_per_second"] * seconds == pytest.approx(36)
    assert values["train/images_per_second/b"] == values["train/tokens_per_second/b"] == 0
    tokens = 2 * (16 * SMALL_TOKENS + 2 * WIDE_TOKENS)
    assert values["train/tokens_per_second"] * seconds == pytest.approx(tokens)
    assert values["train/tokens_per_second/a"] * seconds == pytest.approx(tokens)
    assert 0.05 < values["train/task_seconds/a"] < seconds and "train/task_seconds/b" not in values


def test_shares_of_waiting_leave_the_rest_to_the_host(loaders):
    speed = speed_on(**loaders)
    values = step_of(speed, **loaders)
    data = values["train/data_wait_share"]
    assert data * values["train/step_seconds"] == pytest.approx(0.02)
    assert (values["train/network_wait_share"], values["train/host_share"]) == (0, 1 - data)
    looks = [(True, False)] * 9 + [(False, False)]  # of several steps: more than this one has left
    speed.waits._recent.extend(_Look(*look) for look in looks)
    values = step_of(speed, **loaders)
    assert values["train/network_wait_share"] == 1 - values["train/data_wait_share"]
    assert values["train/host_share"] == 0


def test_on_a_gpu_an_empty_stream_waits_for_the_host_or_with_it_for_data(monkeypatch, loaders):
    found = iter([True, False, False, True])
    stream = SimpleNamespace(query=lambda: next(found, True))
    monkeypatch.setattr(torch.cuda, "current_stream", {torch.device("cuda", 1): stream}.__getitem__)
    monkeypatch.setattr(collective_waits, "LOOK_EVERY_S", 0.001)
    with CollectiveWaits(torch.device("cuda", 1)) as waits:
        time.sleep(0.02)
        assert next(found) and waits.idle_share() == 0  # nobody looks between steps
        with waits.counting():
            while len(waits._recent) < 3:
                time.sleep(0.001)
    first = [look.idle for look in waits._recent][:3]
    assert first == [False, False, True]
    speed = speed_on("cuda:1", **loaders)
    speed.waits._recent.extend(_Look(False, idle) for idle in first)
    assert speed._shares(0.25) == {
        "train/data_wait_share": 0.25,
        "train/host_wait_share": pytest.approx(1 / 3 - 0.25),
    }
    speed._network.share = 0.125
    assert speed._shares(0.25)["train/network_wait_share"] == 0.125
    assert speed._shares(0.5)["train/host_wait_share"] == 0


def test_operations_follow_the_warm_up_and_need_a_known_peak_for_mfu(loaders):
    costs = SimpleNamespace(tokens=lambda canvas: 1, flops=lambda seen: {"a": 3e12, "b": 0.0})
    speed = speed_on(costs=costs, **loaders)
    for _ in range(WARM_UP):
        assert "train/tflops" not in step_of(speed, **loaders)
    values = step_of(speed, **loaders)
    assert values["train/tflops"] * values["train/step_seconds"] == pytest.approx(3)
    assert values["train/tflops/a"] >= values["train/tflops"]
    assert not any("mfu" in key for key in values)
    speed._peak = peak_of("NVIDIA A100-SXM4-40GB")
    values = step_of(speed, **loaders)
    assert values["train/mfu"] == pytest.approx(values["train/tflops"] / 311.9)
    assert values["train/mfu/a"] == pytest.approx(values["train/tflops/a"] / 311.9)


def test_operations_of_a_step_are_those_of_its_images():
    costs = ImageCosts(tiny_model("shared", depth=2).build(TINY_TASKS))
    seen = {"cls": Counter({SMALL: 3, WIDE: 1}), "dec": Counter({SMALL: 0})}
    one = costs.flops({"cls": Counter({SMALL: 1})})["cls"]
    wide = costs.flops({"cls": Counter({WIDE: 1})})["cls"]
    assert costs.flops(seen) == {"cls": 3 * one + wide, "dec": 0}


def test_on_a_gpu_tasks_are_timed_by_events_that_nobody_waits_for(monkeypatch):
    class Event:
        marks = iter([1000.0, 1250.0])

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.ms = next(self.marks)

        def elapsed_time(self, later):
            return later.ms - self.ms

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    clock = TaskClock(torch.device("cuda"))
    with clock.of("a"):
        pass
    assert clock.seconds() == {"a": 0.25}


def test_a_model_that_does_not_count_is_said_once(monkeypatch):
    costs = ImageCosts(tiny_model("shared", depth=2).build(TINY_TASKS))
    monkeypatch.setattr("torch.autograd.backward", lambda *_: torch.empty(1, device="meta").item())
    seen = {"cls": Counter({SMALL: 1})}
    with pytest.warns(UserWarning, match="the log has no MFU"):
        assert costs.flops(seen) is None
    assert costs.flops(seen) is None


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA A100-PCIE-40GB", 311.9),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA L40S", 362.1),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_a_gpu_is_known_by_its_name(name, tflops):
    assert peak_of(name) == pytest.approx(tflops * 1e12)


def test_an_unknown_gpu_has_no_peak():
    assert peak_of("Tesla V100-SXM2-16GB") is None


def test_the_console_has_tokens_and_mfu_or_operations():
    rates = {"train/tokens_per_second": 12_345.0, "train/tflops": 1.234}
    assert speed_text({}) == ""
    assert speed_text(rates) == "12.3 k tokens/s  1.23 TFLOP/s"
    assert speed_text(rates | {"train/mfu": 0.4126}) == "12.3 k tokens/s  MFU 41.3 %"


PEAKS = {"train/peak_memory_gib": 1.5, "train/peak_reserved_gib": 2.0}


@pytest.mark.parametrize(("device", "told"), [("cpu", {}), ("cuda:1", PEAKS)])
def test_peak_memory_is_that_of_the_ranks_own_gpu(monkeypatch, device, told):
    peaks = {torch.device("cuda", 0): 0, torch.device("cuda", 1): 3 << 29}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peaks.__getitem__)
    reserved = {device: size and 4 << 29 for device, size in peaks.items()}
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", reserved.__getitem__)
    assert speed_on(device)._peak_memory() == told
