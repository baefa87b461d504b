"""Compiled blocks compute what they compute otherwise, and are compiled once per input size."""

import functools

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from ufo_large.models import compiling
from ufo_large.planning.recording import Key, Recorder
from ufo_large.testing.models import tiny_trunk

TASKS = ("a", "b")
SIDES = {"a": 24, "b": 32}


@pytest.fixture(autouse=True)
def light_backend(monkeypatch):
    """Trace, partition and guard as always, but leave out the code generation, which takes minutes."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    counters.clear()


def build(compiled: bool, router: str = "residual", **changes) -> nn.Module:
    torch.manual_seed(0)
    trunk = tiny_trunk(router, **{"depth": 3, "compile": compiled, **changes}).build(TASKS).train()
    for parameter in trunk.parameters():
        nn.init.normal_(parameter, std=0.1)
    return trunk


def step(trunk: nn.Module, task: str) -> tuple[torch.Tensor, dict]:
    """Return the loss of a batch of the task's own size, and the gradients."""
    side = SIDES[task]
    device = next(trunk.parameters()).device
    images = torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([[side, side]] * 2, device=device)
    features = trunk(images.to(device, torch.uint8), sizes, task)
    loss = features.pooled_BD.square().mean() + features.map_BDHW.sin().mean()
    trunk.zero_grad()
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in trunk.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_losses_and_gradients_are_those_of_eager_blocks(mode):
    """Measured: they differ by 1e-6 of the largest gradient at most."""
    compiled, eager = build(True, checkpointing=mode), build(False)
    for task in TASKS:
        (loss, found), (expected_loss, expected) = step(compiled, task), step(eager, task)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=1e-6)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert counters["stats"]["unique_graphs"] > 0


def test_task_switches_compile_nothing_after_the_first_turn_and_no_graph_breaks():
    """Per input size: the first block, which drops nothing, the others, and a routed one's three parts."""
    trunk = build(True, depth=5, drop_path=0.2)
    for task in TASKS:
        step(trunk, task)
    first = counters["stats"]["unique_graphs"]
    for task in (*TASKS, *reversed(TASKS)):
        step(trunk, task)
    assert counters["stats"]["unique_graphs"] == first
    assert len(trunk.units()) > 5 and first == 5 * len(TASKS)
    assert not counters["graph_break"]


def test_experts_that_share_out_tokens_run_as_they_are():
    """Each batch gives them another number of tokens, and would be another graph."""
    trunk = build(True, router="token_topk")
    for task in (*TASKS, *TASKS):
        step(trunk, task)
    assert counters["stats"]["unique_graphs"] == 2 * len(TASKS), "plain blocks, a routed one's attention"


def test_evaluation_is_not_compiled_and_equals_the_eager_one_bit_for_bit():
    compiled, eager = build(True).eval(), build(False).eval()
    images, sizes = torch.full((2, 3, 24, 24), 77, dtype=torch.uint8), torch.full((2, 2), 24)
    with torch.no_grad():
        found, expected = (trunk(images, sizes, "a") for trunk in (compiled, eager))
    assert torch.equal(found.map_BDHW, expected.map_BDHW)
    assert counters["stats"]["unique_graphs"] == 0


def test_blocks_of_any_drop_rate_share_one_graph_that_drops_whole_images():
    """By its definition (arXiv:1603.09382): a sample is dropped at the rate, or divided by what is left."""
    drops = nn.ModuleList(compiling.TensorDropPath(rate) for rate in (0.25, 0.5)).train()
    run = torch.compile(lambda module, x: module(x), backend="aot_eager", dynamic=False)
    torch.manual_seed(0)
    for drop, kept in zip(drops, (0.75, 0.5), strict=True):
        out = run(drop, torch.ones(4000, 3, 2))
        each = out[:, 0, 0]
        assert torch.equal(out, each[:, None, None].expand_as(out))
        torch.testing.assert_close(each.unique(), torch.tensor([0.0, 1 / kept]))
        assert abs((each > 0).float().mean() - kept) < 0.03
    assert counters["stats"]["unique_graphs"] == 1


def test_where_nothing_can_be_compiled_the_error_names_the_setting(monkeypatch):
    def broken(graph, inputs):
        raise OSError("no compiler here")

    monkeypatch.setattr(compiling, "BACKEND", broken)
    with pytest.raises(RuntimeError, match=r"(?s)no compiler here.*--set model\.trunk\.compile=false"):
        step(build(True), "a")


def test_on_a_cpu_nothing_is_compiled_unless_asked_for():
    step(build(None), "a")
    assert counters["stats"]["unique_graphs"] == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_generated_kernels_compute_the_same_on_a_gpu(monkeypatch, mode):
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    compiled, eager = build(None, checkpointing=mode).cuda(), build(False).cuda()
    for task in TASKS:
        (loss, found), (expected_loss, expected) = step(compiled, task), step(eager, task)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=1e-5)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4, msg=name)
    assert counters["stats"]["unique_graphs"] > 0


def through_blocks(trunk: nn.Module) -> torch.Tensor:
    trunk.route.begin("a", True)
    x_BLD = torch.ones(2, 257, 48, dtype=torch.bfloat16, requires_grad=True)
    return functools.reduce(lambda y_BLD, block: block(y_BLD), trunk.vit.blocks, x_BLD)


def planned_bytes(trunk: nn.Module) -> int:
    """What the planner writes down as alive behind the forward pass."""
    recorder = Recorder([*trunk.parameters(), *trunk.buffers()])
    with recorder:
        y_BLD = through_blocks(trunk)
    sizes: dict[Key, int] = {}
    for event in [event for segment in recorder.segments for event in segment.events]:
        sizes[event.key] = event.size
    return sum(sizes.values()) - y_BLD.untyped_storage().nbytes()


def kept_bytes(trunk: nn.Module) -> int:
    """What autograd keeps for the backward pass, parameters apart."""
    own = {p.untyped_storage()._cdata for p in trunk.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        through_blocks(trunk)
    return sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in own)


@pytest.mark.parametrize(("mode", "off"), [("none", 0.0), ("selective", 0.05)])
def test_compiled_blocks_keep_what_is_planned(monkeypatch, mode, off):
    """By the partitioner that inductor has too; plans are of blocks that are not compiled."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager_decomp_partition")
    options = {"depth": 2, "checkpointing": mode, "drop_path": 0.1}
    eager, compiled = (build(wanted, "task", **options).to(torch.bfloat16) for wanted in (False, True))
    assert kept_bytes(compiled) == pytest.approx(planned_bytes(eager), rel=off)
    assert counters["stats"]["unique_graphs"] > 0
