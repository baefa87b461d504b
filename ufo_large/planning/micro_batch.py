"""One micro-batch of one task, recorded without a GPU: forward pass, losses, backward pass.

Trunk, pyramid and head run on fake tensors of the real shapes. Losses that read values, as those that match
queries with objects do, cannot: they run for real on random outputs, of `REAL_IMAGES` images at most, and
what they record is scaled to the batch. The graph then goes on from fake gradients of the outputs.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ufo_large.models.checkpointing import Checkpointing, checkpoint_block
from ufo_large.models.multitask import MultitaskModel
from ufo_large.planning.batches import random_batch
from ufo_large.planning.blocks import expanded, shortened, shortening
from ufo_large.planning.even_routing import EvenRouting
from ufo_large.planning.recording import Event, Place, Recorder, Segment, Work
from ufo_large.routing.learned import LearnedBank
from ufo_large.routing.token_topk import TokenTopKRouter
from ufo_large.structures import TaskBatch, TaskInfo
from ufo_large.structures.batch import map_arrays
from ufo_large.tasks.finite import FiniteWatch

REAL_IMAGES = 1


@dataclass(frozen=True, slots=True)
class Load:
    """What a rank sees of a task in a step: `micro_batches` of `images` of (height, width).

    `boxes`: objects in an image, where the task has boxes.
    """

    images: int
    size: tuple[int, int]
    micro_batches: float = 1
    boxes: int = 4


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Events in order and operations by kind. `losses`: `traced`, `run` for real, or `guessed`.

    `offloaded`: bytes of blocks' inputs that wait in host memory for the backward pass.
    """

    events: tuple[Event, ...]
    work: Counter[Work]
    losses: str
    offloaded: int = 0

    @property
    def launches(self) -> int:
        return self.work.total()


class FakeModel:
    """A model of fake tensors on the processor, in training mode, in the dtype that a rank computes in."""

    def __init__(
        self, config: MultitaskModel.Config, tasks: tuple[TaskInfo, ...], dtype: torch.dtype = torch.bfloat16
    ):
        plain = replace(config, trunk=replace(config.trunk, checkpointing="none", compile=False))
        with torch.device("meta"), _default_dtype(dtype):
            model = plain.build(tasks)
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self.mode:
            self.model = model.to_empty(device="cpu").train()
        for module in self.model.modules():
            if isinstance(module, LearnedBank):
                module.without_values()
        router = config.trunk.router
        sparse = isinstance(router, TokenTopKRouter.Config)
        self._even = EvenRouting(router.num_experts) if sparse else contextlib.nullcontext()
        self._losses: dict[tuple[str, Load], Segment | None] = {}

    def record(
        self, task: str, load: Load, checkpointing: Checkpointing = "none", short: bool = True
    ) -> MicroBatch:
        """Record a micro-batch; `short` leaves out blocks that others stand for.

        The model is built without checkpointing; here its blocks have it for a while.
        """
        model = self.model
        trunk = model.trunk
        plan = shortening(trunk, model.heads[task].query_blocks)
        batch = random_batch(model.tasks[task], load.images, load.size, boxes=load.boxes, alike=True)
        recorder = Recorder((*model.parameters(), *model.buffers()))
        with contextlib.ExitStack() as stack:
            if short:
                stack.enter_context(shortened(trunk, plan))
            stack.enter_context(_handing_over_gradients(model, recorder))
            stack.enter_context(_marked(trunk.vit.blocks, recorder, checkpointing))
            losses = self._run(batch, load, recorder)
        trunk.route.begin(task, False)  # forgets what is fake
        if short:
            events, work = expanded(recorder.segments, plan)
        else:
            events = [event for segment in recorder.segments for event in segment.events]
            work = sum((segment.work for segment in recorder.segments), Counter())
        offloaded = sum(event.size for event in events if event.is_back)
        return MicroBatch(tuple(events), work, losses, offloaded)

    def _run(self, batch: TaskBatch, load: Load, recorder: Recorder) -> str:
        head: Any = self.model.heads[batch.task]
        with self.mode, self._even, recorder:
            on_rank = map_arrays(batch, lambda t: torch.empty(t.shape, dtype=t.dtype))
            outputs = self.model.outputs(on_rank)
        routing = list(self.model.trunk.route.losses.values())
        segment = None if batch.targets is None else self._losses_apart(head, outputs, batch, on_rank, load)
        with self.mode, self._even, recorder:
            if segment is None:
                named = _guessed(outputs) if batch.targets is None else head.losses(outputs, on_rank)
                losses = [*named.values(), *routing]
                del outputs, named
                torch.stack([v.float() for v in losses]).sum().backward()
                del losses
            else:
                recorder.insert(segment)
                leaves = [t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.requires_grad]
                upstream = [torch.empty_like(t) for t in leaves]
                del outputs
                torch.autograd.backward([*leaves, *routing], [*upstream, *[None] * len(routing)])
                del leaves, upstream
            recorder.begin(Place("end"))
        head.watch = FiniteWatch()
        return "guessed" if batch.targets is None else "traced" if segment is None else "run"

    def _losses_apart(
        self, head: Any, outputs: Any, batch: TaskBatch, on_rank: TaskBatch, load: Load
    ) -> Segment | None:
        """Return what losses record that must run for real; None where fake tensors are enough."""
        key = (batch.task, load)
        if key not in self._losses:
            can_trace = _can_trace(head, outputs, on_rank, self.mode)
            head.watch = FiniteWatch()
            self._losses[key] = None if can_trace else _real_losses(head, outputs, batch)
            head.watch = FiniteWatch()
        return self._losses[key]


def _can_trace(head: Any, outputs: Any, batch: TaskBatch, mode: FakeTensorMode) -> bool:
    """Whether the losses need no values; those that do raise on fake tensors, or hand them to NumPy."""
    head.watch = FiniteWatch()
    try:
        with mode:
            head.losses(outputs, batch)
    except (RuntimeError, TypeError):
        return False
    return True


class _Marks:
    """Tells the recorder which block runs, forwards and backwards, around a block's own `__call__`."""

    def __init__(self, recorder: Recorder, index: int, is_last: bool, moves_input: bool):
        self.recorder, self.index, self.is_last, self.moves_input = recorder, index, is_last, moves_input

    def __call__(self, run: Any, x_BLD: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        recorder, index = self.recorder, self.index
        recorder.begin(Place("forward", index))
        if x_BLD.requires_grad:
            below = Place("backward", index - 1) if index else Place("end")
            x_BLD.register_hook(lambda _: recorder.begin(below))
        y_BLD = run(x_BLD, *args, **kwargs)
        if self.is_last:
            recorder.begin(Place("behind"))
        if y_BLD.requires_grad:
            if self.moves_input and recorder.move_away(x_BLD):
                held = [x_BLD]  # a hook lives as long as the graph, the input must not
                y_BLD.register_hook(lambda _: recorder.move_back(held.pop()))
            if self.is_last:
                y_BLD.register_hook(lambda _: recorder.begin(Place("backward", index)))
        return y_BLD


@contextlib.contextmanager
def _marked(blocks: nn.Module, recorder: Recorder, checkpointing: Checkpointing) -> Iterator[None]:
    """Checkpoint the blocks, inside, and have them tell the recorder where they begin."""
    own = {block: type(block) for block in blocks}
    for index, block in enumerate(own):
        checkpoint_block(block, checkpointing)
        block.__dict__["_marks"] = _Marks(recorder, index, index == len(own) - 1, checkpointing == "offload")
        block.__class__ = _with_marked_call(type(block))
    try:
        yield
    finally:
        for block, block_class in own.items():
            block.__class__ = block_class
            del block.__dict__["_marks"]
            block.__dict__.pop("_offloaded_call", None)


@functools.cache
def _with_marked_call(block_class: type[nn.Module]) -> type[nn.Module]:
    def call(self, *args, **kwargs):
        return self._marks(functools.partial(block_class.__call__, self), *args, **kwargs)

    return type(
        block_class.__name__, (block_class,), {"__call__": call, "__module__": block_class.__module__}
    )


@contextlib.contextmanager
def _handing_over_gradients(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Take each parameter's gradient as soon as it is whole, as ZeRO does."""

    def take(parameter: Tensor) -> None:
        recorder.free_gradient(parameter.grad)
        parameter.grad = None

    hooks = [p.register_post_accumulate_grad_hook(take) for p in model.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _real_losses(head: Any, outputs: Any, batch: TaskBatch) -> Segment:
    """Run the losses forwards and backwards on a few real images; return what that records."""
    images = min(len(batch), REAL_IMAGES)
    real = tree_map_only(Tensor, lambda t: _like(t, images / len(batch), batch), outputs)
    leaves = [t for t in tree_leaves(real) if isinstance(t, Tensor) and t.requires_grad]
    few = random_batch(head.info, images, tuple(batch.images_BCHW.shape[-2:]), boxes=_boxes_of(batch))
    recorder = Recorder(leaves, scale=len(batch) / images)
    recorder.begin(Place("losses"))
    with recorder:
        losses = head.losses(real, few)
        torch.stack([v.float() for v in losses.values()]).sum().backward()
        del losses
        for leaf in leaves:
            leaf.grad = None
    return recorder.segments[-1]


def _like(tensor: Tensor, share: float, batch: TaskBatch) -> Tensor:
    """Return random values where a fake tensor of the batch stands, for a share of its images."""
    if not tensor.requires_grad:
        return torch.full(tensor.shape, float(max(batch.images_BCHW.shape[-2:])))
    shape = (round(tensor.shape[0] * share), *tensor.shape[1:])
    return torch.empty(shape).uniform_(0.1, 0.9).to(tensor.dtype).requires_grad_()


def _boxes_of(batch: TaskBatch) -> int:
    """Return the boxes of an image of a random batch, 1 where it has none."""
    labels = getattr(batch.targets, "labels_N", ())
    return max(1, len(labels) // len(batch))


def _guessed(outputs: Any) -> dict[str, Tensor]:
    """Stand in for losses that are not known: a float32 copy of every output, and one value made of it."""
    floats = [t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.requires_grad]
    return {str(i): t.float().sigmoid().sum() for i, t in enumerate(floats)}


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
