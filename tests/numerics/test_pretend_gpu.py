"""Heads, routers and checkpointing modes keep their tensors on one device, and seldom wait for it.

On a CPU, with tensors that say they are on a GPU.
"""

import dataclasses

import pytest
import torch

from ufo_large.balancing import METHODS
from ufo_large.distributed.engine import PlainEngine
from ufo_large.models.checkpointing import CHECKPOINTING
from ufo_large.runs.optimizer import OptimizerConfig
from ufo_large.tasks import HEADS
from ufo_large.testing.models import ROUTED, TINY_INFOS, TINY_TASKS, tiny_batch, tiny_model, tiny_model_with
from ufo_large.testing.pretend_gpu import GPU, PretendGpu, ValueReads
from ufo_large.testing.tasks import SMALL_DECODERS
from ufo_large.train.steps import Feed, StepRunner

NONE = ("linear", "grid", "arcface", "fcos", "dense", "dense_depth", "dpt")
WAITS = dict.fromkeys(NONE, 0) | {"detr": 1, "rf_detr": 1, "mask2former": 2, "eomt": 2}
"""In a forward and backward pass: the costs of all matchings, and before it the classes of all true masks."""

READS = {"linear": 2, "grid": 2, "arcface": 2, "mask2former": 1, "eomt": 1}
"""On the CPU only: `one_hot` looks at the range of the classes there, and true masks are listed there."""


def filled(config, gpu: PretendGpu):
    torch.manual_seed(0)
    model = config.build([info for kind, info in TINY_INFOS.items() if kind in config.heads])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return gpu.place(model)


def gradients(config, kind: str, images: int = 2) -> tuple[dict, PretendGpu]:
    """Return the gradients of one micro-batch, and what the second of two waited for."""
    gpu = PretendGpu()
    model = filled(config, gpu).train()
    with gpu:
        batch = tiny_batch(TINY_INFOS[kind], images, 48).to(GPU)
        for _ in range(2):
            gpu.waits.clear()
            model.zero_grad()
            losses = model(batch)
            torch.stack([value.float() for value in losses.values()]).sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}, gpu


@pytest.mark.parametrize(("kind", "head"), [(k, h) for k, heads in HEADS.items() for h in heads])
def test_a_head_trains_and_predicts_on_one_device(kind, head):
    config = tiny_model_with(kind, head)
    found, gpu = gradients(config, kind)
    assert any(g is not None and g.any() for name, g in found.items() if name.startswith("heads."))
    assert gpu.waits.total() == WAITS[head], gpu.waits
    model = filled(config, gpu).eval()
    with gpu, torch.no_grad():
        predictions = model.predict(tiny_batch(TINY_INFOS[kind], 2, 48).to(GPU))
        assert len(predictions) == 2


def small(kind: str, head: str):
    """Return the tiny model with that head, with few queries where it has any."""
    config = tiny_model_with(kind, head)
    if head in SMALL_DECODERS:
        chosen = HEADS[kind][head].Config(**SMALL_DECODERS[head])
        return dataclasses.replace(config, heads={**config.heads, kind: chosen})
    return config


@pytest.mark.parametrize(("kind", "head"), [("detection", "detr"), ("segmentation", "mask2former")])
def test_more_images_make_no_more_waits(kind, head):
    assert gradients(small(kind, head), kind, images=5)[1].waits.total() == WAITS[head]


def test_optional_losses_do_not_wait():
    options = {"strides": (4, 8), "dice_weight": 1.0, "class_weights": (1.0, 2.0, 1.0, 0.5)}
    config = tiny_model("task")
    heads = {**config.heads, "segmentation": HEADS["segmentation"]["dense"].Config(**options)}
    assert not gradients(dataclasses.replace(config, heads=heads), "segmentation")[1].waits


@pytest.mark.parametrize(("kind", "head"), [(k, h) for k, heads in HEADS.items() for h in heads])
def test_no_operator_inside_torch_reads_values(kind, head):
    """As `one_hot` would, if it had to find out how many classes there are."""
    model = filled(small(kind, head), PretendGpu()).train()
    with ValueReads() as reads:
        losses = model(tiny_batch(TINY_INFOS[kind], 2, 48))
        torch.stack([value.float() for value in losses.values()]).sum().backward()
    assert reads.found.total() == READS.get(head, 0), reads.found


def test_reads_of_values_are_seen_forward_and_backward():
    x = torch.ones(3, requires_grad=True)
    x.register_hook(lambda gradient: gradient * gradient.sum().item())
    with ValueReads() as reads:
        classes = torch.nn.functional.one_hot(torch.arange(3))
        assert reads.found.total() == 2  # the smallest and the largest
        (x * classes).sum().backward()
    assert reads.found.total() == 3


@pytest.mark.parametrize("router", ROUTED)
def test_a_router_keeps_to_one_device(router):
    """Routing token by token waits once in each routed block: how many tokens an expert gets is a shape."""
    config = tiny_model(router)
    routed = len(filled(config, PretendGpu()).trunk.banks())
    waits = gradients(config, "classification")[1].waits
    assert waits.total() == (routed if router == "token_topk" else 0), waits


@pytest.mark.parametrize("mode", CHECKPOINTING)
def test_a_checkpointing_mode_gives_the_same_gradients(mode):
    """A copy to the host is another tensor there, which once cut offloaded blocks off the graph."""
    expected, _ = gradients(tiny_model("task"), "classification")
    found, _ = gradients(tiny_model("task", checkpointing=mode), "classification")
    for name, gradient in found.items():
        assert (gradient is None) == (expected[name] is None), name
        assert gradient is None or torch.equal(gradient, expected[name]), name


class Repeat:
    """A loader of one batch."""

    def __init__(self, batch):
        self.batch = batch

    def __next__(self):
        return self.batch


@pytest.mark.parametrize("method", ["tbgn", "nash_mtl", "uncertainty"])
def test_a_step_waits_for_its_measurement_and_the_norm_alone(method):
    """The measurement, and the norm for clipping, moved and read by torch; these heads wait for nothing."""
    gpu = PretendGpu()
    model, names = filled(tiny_model("task"), gpu).train(), tuple(info.name for info in TINY_TASKS)
    feeds = {info.name: Feed(loader=Repeat(tiny_batch(info, 2, 48))) for info in TINY_TASKS}
    with gpu:
        optimizer = OptimizerConfig(learning_rate=1e-3).build(model)
        engine = PlainEngine(model, optimizer, GPU, clip_norm=1.0)
        runner = StepRunner(engine, feeds, METHODS[method].Config().build(names, 0), total_steps=2)
        for step in range(2):
            gpu.waits.clear()
            runner.run(step, [1e-3] * len(optimizer.param_groups))
    assert gpu.waits.total() <= 3, gpu.waits


def test_what_torch_refuses_on_a_gpu_is_refused():
    cpu = torch.ones(2)
    with PretendGpu() as gpu:
        there = torch.ones(2, device="cuda")
        assert there.device == (there + 1).device == there.data.device == GPU and cpu.device.type == "cpu"
        assert there.cpu().device.type == "cpu" and cpu.to(there).device == GPU
        for wrong in (
            lambda: there + cpu,
            lambda: there.numpy(),
            lambda: cpu[there.long()],
            lambda: torch.rand(2, device="cuda", generator=torch.Generator()),
        ):
            with pytest.raises(RuntimeError):
                wrong()
        assert there[cpu.bool()].device == GPU
    assert {name.split(" ")[0] for name in gpu.waits} == {"cpu", "to", "__getitem__"}
