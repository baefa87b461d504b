"""The planner: recordings against torch's own counters, states against measured ones, choices, bad input."""

import json
import runpy
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ufo_large.config import apply_overrides
from ufo_large.distributed import ds_config
from ufo_large.distributed.engine import PlainEngine
from ufo_large.distributed.task_gradients import CHUNK, TaskGradients
from ufo_large.models import MultitaskModel, Trunk, compiling
from ufo_large.models.checkpointing import CHECKPOINTING
from ufo_large.models.lora import LoraConfig
from ufo_large.planning.allocator import CachingAllocator
from ufo_large.planning.cluster import Cluster
from ufo_large.planning.gpus import GIB, GPUS, gpu_named, gpu_of_card
from ufo_large.planning.loads import loads_of, sizes_of
from ufo_large.planning.micro_batch import FakeModel, Load
from ufo_large.planning.plan import Choice, Planner
from ufo_large.planning.search import MODES, alternatives, fastest, nearest, shardings
from ufo_large.planning.states import Counts, Sharding, states_of
from ufo_large.planning.training_flops import TrainingFlops
from ufo_large.recipes import load_recipe
from ufo_large.routing import ROUTERS
from ufo_large.runs.optimizer import OptimizerConfig
from ufo_large.tasks import HEADS
from ufo_large.testing.models import TINY_TASKS, tiny_batch, tiny_model, tiny_model_with, tiny_trunk

ROOT = Path(__file__).resolve().parents[2]
HEADS_OF = [(kind, head) for kind in ("detection", "segmentation") for head in HEADS[kind]]


def read_ds(name: str):
    return ds_config.read_named(name, ROOT / "ds_configs")


def peak(micro_batch) -> int:
    allocator, blocks = CachingAllocator(), {}
    for event in micro_batch.events:
        if event.size:
            blocks[event.key] = allocator.allocate(event.size)
        else:
            allocator.free(blocks.pop(event.key))
    assert sum(block.size for block in blocks.values()) < 0.2 * allocator.peak_live  # all else is freed
    return allocator.peak_live


@pytest.mark.parametrize(
    "mode", [pytest.param(m, marks=[] if m == "offload" else pytest.mark.slow) for m in CHECKPOINTING]
)
def test_blocks_that_are_left_out_are_written_down_as_they_would_have_run(mode):
    config = tiny_model("task", depth=16, drop_path=0.2)
    router = replace(config.trunk.router, blocks=tuple(range(8, 16)))
    model = FakeModel(replace(config, trunk=replace(config.trunk, router=router)), TINY_TASKS)
    load = Load(2, (32, 32))
    model.record("seg", load, mode)  # what is made once and kept
    short, whole = (model.record("seg", load, mode, short=short) for short in (True, False))
    sizes = [[event.size for event in recorded.events] for recorded in (short, whole)]
    assert sizes[0] == sizes[1]
    assert (short.work, peak(short), short.offloaded) == (whole.work, peak(whole), whole.offloaded)


def test_checkpointing_saves_memory_and_costs_operations():
    model = FakeModel(tiny_model("shared", depth=8), TINY_TASKS)
    recorded = {mode: model.record("cls", Load(16, (32, 32)), mode) for mode in CHECKPOINTING}
    peaks = {mode: peak(r) for mode, r in recorded.items()}
    assert peaks["none"] > peaks["selective"] > peaks["full"] > peaks["offload"]
    flops = {mode: sum(w.flops * n for w, n in r.work.items()) for mode, r in recorded.items()}
    assert flops["none"] == flops["selective"] < flops["full"]
    assert recorded["offload"].offloaded > 0 == recorded["full"].offloaded


def test_operations_are_those_that_torch_counts():
    """Products and convolutions; attention is not in torch's registry for the processor."""
    config = tiny_model("task")
    recorded = FakeModel(config, TINY_TASKS, torch.float32).record("seg", Load(2, (32, 32)))
    counted = Counter()
    for work, count in recorded.work.items():
        counted[work.kind] += work.flops * count
    model, batch = config.build(TINY_TASKS).train(), tiny_batch(TINY_TASKS[2])
    with FlopCounterMode(display=False) as counter:
        sum(model(batch).values()).backward()
    assert counted["matrix"] + counted["convolution"] == counter.get_total_flops()
    tokens, width, images, blocks = 17, 48, 2, 4
    assert counted["attention"] == 14 * images * blocks * tokens**2 * width  # 2 products forward, 5 back


def test_what_a_gpu_would_compile_is_planned_and_counted_without(monkeypatch):
    monkeypatch.setattr(torch, "compile", None)
    monkeypatch.setattr(compiling, "_with_compiled_forward", None)
    config = tiny_model("shared", depth=2, compile=True)
    compiled = FakeModel(config, TINY_TASKS).record("cls", Load(2, (32, 32)), "selective")
    assert TrainingFlops(config, TINY_TASKS).per_image("cls", (32, 32)) > 0
    plain = FakeModel(tiny_model("shared", depth=2), TINY_TASKS).record("cls", Load(2, (32, 32)), "selective")
    assert compiled.work == plain.work


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "head"), HEADS_OF)
def test_every_head_is_recorded(kind, head):
    infos = {info.kind: info for info in TINY_TASKS}
    model = FakeModel(tiny_model_with(kind, head), TINY_TASKS)
    one, two = (model.record(infos[kind].name, Load(n, (64, 64), boxes=2)) for n in (2, 4))
    matched = {"detr", "rf_detr", "mask2former", "eomt"}
    assert one.losses == ("run" if head in matched else "traced")
    assert 1.5 * peak(one) < peak(two) < 2.1 * peak(one)


@pytest.mark.parametrize("router", sorted(ROUTERS))
def test_every_routing_scheme_is_recorded(router):
    model = FakeModel(tiny_model(router), TINY_TASKS)
    assert model.record("cls", Load(2, (32, 32))).losses == "traced"


def test_states_are_those_measured_at_full_size():
    """The first row of benchmarks/results/zero3_full_size_cpu_202611.md: GiB of one of eight ranks."""
    measured = {"weights": 0.72, "float32 weights": 1.45, "gradients": 1.45, "moments": 2.89}
    measured["gradients of each task"] = 1.41
    router = ROUTERS["learned"].Config(blocks=tuple(range(40)))
    trunk = Trunk.Config(name="vit_giant_patch14_clip_224", router=router)
    config = MultitaskModel.Config(trunk=trunk, heads=tiny_model().heads)
    with torch.device("meta"):
        counts = Counts.of(config.build(TINY_TASKS))
    held = states_of(counts, Sharding.of(read_ds("zero3_bf16"), 8), averaged=False).on_gpu
    for name, gib in measured.items():
        assert held[name] / GIB == pytest.approx(gib, abs=0.011), name


def test_gradients_of_plain_torch_are_those_that_a_step_holds():
    model = tiny_model("task", depth=2).build(TINY_TASKS)
    engine = PlainEngine(model, OptimizerConfig(learning_rate=1e-4).build(model), torch.device("cpu"))
    gradients = TaskGradients(engine.gradients, len(TINY_TASKS))
    for info in TINY_TASKS:
        gradients.begin_task(info.name)
    kept = tree_leaves([list(vars(holder).values()) for holder in (gradients, engine.gradients)])
    storages = {x.untyped_storage() for x in kept if isinstance(x, torch.Tensor) and not x.requires_grad}
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    held = states_of(Counts.of(model), Sharding.of(None, 1), averaged=False).on_gpu
    planned = held["gradients"] + held["gradients of each task"]
    padding = 4 * len(TINY_TASKS) * CHUNK
    assert planned <= sum(sizes.values()) <= planned + padding


def test_what_is_offloaded_is_not_on_the_gpu():
    counts = Counts(100, 100, 60, {"a": 80, "b": 80}, {"a": 80, "b": 80})
    here = Sharding.of(read_ds("zero3_bf16"), 2)
    there = Sharding.of(read_ds("zero3_bf16_offload"), 2)
    kept, moved = (states_of(counts, sharding, averaged=True) for sharding in (here, there))
    assert set(moved.on_gpu) == {"gradient bucket", "weights"}
    assert sum(kept.on_gpu.values()) == sum(moved.on_gpu.values()) + sum(moved.on_host.values())
    assert kept.on_gpu["average of weights"] == 4 * 100 / 2


@pytest.fixture(scope="module")
def planner() -> Planner:
    demo = apply_overrides(load_recipe("demo"), ["tasks.classification.loader.micro_batch=1024"])
    config = replace(demo, ds="zero3_bf16", tasks={"classification": demo.tasks["classification"]})
    return Planner(config, sizes_of(config, None), Cluster(GPUS["h200"], 1), read_ds, price=2.0)


def on(planner: Planner, memory: float) -> Planner:
    planner.cluster = Cluster(replace(GPUS["h200"], memory=memory), 1)
    return planner


@pytest.mark.parametrize("nowhere", [None, {}, {"device": "none"}])
def test_an_offload_to_nowhere_is_none(nowhere):
    """As templates of DeepSpeed's JSON have it."""
    plain = read_ds("zero3_bf16")
    zero = plain["zero_optimization"] | {"offload_optimizer": nowhere, "offload_param": nowhere}
    assert Sharding.of(plain | {"zero_optimization": zero}, 2) == Sharding.of(plain, 2)


@pytest.mark.parametrize(
    ("options", "steps", "count"),
    [
        ({"micro_batches": 1, "micro_batches_from": {"50": 0}}, 100, 0.5),
        ({"micro_batches": 1, "micro_batches_from": {"200": 0}}, 100, 1.0),
        ({"micro_batches": 0, "micro_batches_from": {"75": 2}}, 100, 0.5),
    ],
)
def test_what_a_task_takes_is_its_mean_over_the_run(planner, options, steps, count):
    """A task that rests at the end, or before, takes memory and time all the same."""
    feed = replace(planner.config.tasks["classification"], **options)
    config = replace(planner.config, steps=steps, tasks={**planner.config.tasks, "classification": feed})
    assert loads_of(config, planner.sizes)["cls"].micro_batches == count


def test_smaller_micro_batches_keep_the_images_of_every_stage(planner):
    feed = planner.config.tasks["classification"]
    loader = replace(feed.loader, micro_batch=2)
    staged = replace(feed, loader=loader, micro_batches=0, micro_batches_from={"3": 2, "5": 0.5})
    config = replace(planner.config, tasks={**planner.config.tasks, "classification": staged})
    own = Planner(config, planner.sizes, planner.cluster, planner.read_ds, shardings=())
    words = own._settings(replace(own.asked, divided=2))
    cut = apply_overrides(config, [word for word in words if word != "--set"]).tasks["classification"]
    assert cut.loader.micro_batch == 1 and cut.stages == ((0, 0), (3, 4), (5, 1))


def test_what_fits_a_card_fits_every_larger_one(planner):
    needed = on(planner, 100 * GIB).plan(planner.asked).memory.needed
    fits = [on(planner, share * needed).plan(planner.asked).fits for share in (0.5, 0.9, 1.0, 1.1, 2.0)]
    assert fits == sorted(fits) and (fits[0], fits[2]) == (False, True)


def test_find_takes_the_fastest_that_fits(planner):
    """All choices are looked at here; the search leaves out those that cannot be the fastest."""
    ways = [Choice(mode, ds) for mode in MODES for ds in shardings(planner)]
    needed = sorted(on(planner, 100 * GIB).plan(way).memory.needed for way in ways)
    for memory in (100 * GIB, (needed[2] + needed[3]) / 2, needed[0] + 1):
        plans = [on(planner, memory).plan(way) for way in ways]
        fitting = [plan for plan in plans if plan.fits and not plan.memory.retries]
        found = fastest(planner)
        assert found.fits and found.time.seconds == min(plan.time.seconds for plan in fitting)


def test_alternatives_are_others_and_the_nearest_fits(planner):
    plan = on(planner, 100 * GIB).plan(planner.asked)
    found = alternatives(planner)
    assert len(found) == 3 and planner.asked not in [other.choice for other in found]
    assert nearest(planner).choice == planner.asked
    small = nearest(on(planner, plan.memory.needed - 0.02 * GIB))
    assert small.fits and small.choice != planner.asked
    with pytest.raises(ValueError, match="nothing fits 1 x h200"):
        nearest(on(planner, 0.5 * GIB))


def test_time_energy_and_price_follow_from_each_other(planner):
    plan = on(planner, 100 * GIB).plan(planner.asked)
    assert plan.hours == pytest.approx(260 * plan.time.seconds / 3600)
    assert (plan.energy, plan.price) == (pytest.approx(0.7 * plan.hours), pytest.approx(2 * plan.hours))
    assert plan.time.seconds > sum(task.gpu.total for task in plan.time.tasks.values())


def test_lora_and_a_frozen_trunk_need_less():
    needed = []
    for setting in ({}, {"lora": LoraConfig(rank=2)}, {"frozen": True}):
        trunk = tiny_trunk("task", **setting)
        model = FakeModel(replace(tiny_model(), trunk=trunk), TINY_TASKS)
        held = states_of(Counts.of(model.model), Sharding.of(read_ds("zero3_bf16"), 1), averaged=True)
        needed.append(sum(held.on_gpu.values()))
        assert model.record("cls", Load(2, (32, 32))).events
    assert needed[0] > needed[1] > needed[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gpu", "h10"], "--gpu 'h10' is not known.*--gpu-memory GIB --gpu-tflops"),
        (["--gpu", "h100", "--bandwidth", "10"], "h100 is known; drop --bandwidth"),
        (["--gpus", "0"], "--gpus 0: must be at least 1"),
        (["--gpus", "9", "--nodes", "2"], "do not spread evenly"),
        (["--ds", "zero4"], "no such DeepSpeed config"),
        (["--ds", "none"], "trains in one process; give --gpus 1"),
        (
            ["--set", "tasks.classification.loader.micro_batch=100000000"],
            "micro_batch of cls: 100000000 images .* as pixels alone, a GPU has 140; lower it",
        ),
    ],
)
def test_bad_input_names_the_remedy(monkeypatch, words, told):
    monkeypatch.setattr(sys, "argv", ["plan.py", "--recipe", "demo", *words])
    with pytest.raises(SystemExit, match=told):
        runpy.run_path(str(ROOT / "launchers" / "plan.py"), run_name="__main__")


def test_a_gpu_of_its_own_figures():
    gpu = gpu_named("mine", 12, 60, 500)
    assert (gpu.memory, gpu.flops, gpu.bandwidth, gpu.power) == (12 * GIB, 60e12, 500e9, None)


def test_a_card_is_known_by_cudas_name_and_its_memory():
    found = gpu_of_card("NVIDIA A100-SXM4-80GB", 79 * GIB)
    assert found == replace(GPUS["a100-80g"], name="NVIDIA A100-SXM4-80GB", memory=79 * GIB)
    assert gpu_of_card("NVIDIA A100-SXM4-40GB", 39 * GIB).bandwidth == GPUS["a100-40g"].bandwidth
    assert gpu_of_card("NVIDIA H100 PCIe", 79 * GIB) is None and gpu_of_card("Tesla V100", GIB) is None


@pytest.mark.slow
def test_the_command_ends_with_json_and_tells_of_data_that_is_not_there(monkeypatch, capsys, tmp_path):
    words = ["--recipe", "demo", "--gpus", "1", "--data", str(tmp_path / "shards"), "--json", "--budget", "1"]
    monkeypatch.setattr(sys, "argv", ["plan.py", *words])
    runpy.run_path(str(ROOT / "launchers" / "plan.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    body = json.loads(lines[-1])
    assert body["sizes"].startswith(f"{tmp_path}/shards does not exist: the contest's classes")
    assert body["fits"] and len(body["alternatives"]) == 3
    assert any(line.startswith("Budget of 1 hours") for line in lines)
