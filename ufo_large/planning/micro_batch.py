"""One micro-batch of one task, recorded without a GPU: forward pass, losses, backward pass.

Trunk, pyramid and head run on fake tensors of the real shapes. Losses that read values, as those that match
queries with objects do, cannot: they run for real on random outputs, of `REAL_IMAGES` images at most, and
what they record is scaled to the batch. The graph then goes on from fake gradients of the outputs.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._pytree import tree_leaves, tree_map_only

from ufo_large.models.multitask import MultitaskModel
from ufo_large.planning.batches import random_batch
from ufo_large.planning.blocks import expanded, shortened, shortening
from ufo_large.planning.recording import Event, Place, Recorder, Work
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
        with torch.device("meta"), _default_dtype(dtype):
            model = config.build(tasks)
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self.mode:
            self.model = model.to_empty(device="cpu").train()
        self.dtype = dtype

    def record(self, task: str, load: Load, short: bool = True) -> MicroBatch:
        """Record a micro-batch; `short` leaves out blocks that others stand for."""
        model = self.model
        info, head, trunk = model.tasks[task], model.heads[task], model.trunk
        plan = shortening(trunk, head.query_blocks)
        batch = random_batch(info, load.images, load.size, boxes=load.boxes)
        recorder = Recorder((*model.parameters(), *model.buffers()))
        with contextlib.ExitStack() as stack:
            if short:
                stack.enter_context(shortened(trunk, plan))
            stack.enter_context(_handing_over_gradients(model, recorder))
            stack.enter_context(_marked(trunk.vit.blocks, recorder, trunk.config.checkpointing == "offload"))
            losses = self._run(batch, head, recorder)
        trunk.route.begin(task, False)  # forgets what is fake
        if short:
            events, work = expanded(recorder.segments, plan)
        else:
            events = [event for segment in recorder.segments for event in segment.events]
            work = sum((segment.work for segment in recorder.segments), Counter())
        offloaded = sum(event.size for event in events if event.is_back)
        return MicroBatch(tuple(events), work, losses, offloaded)

    def _run(self, batch: TaskBatch, head: Any, recorder: Recorder) -> str:
        with self.mode, recorder:
            on_rank = map_arrays(batch, lambda t: torch.empty(t.shape, dtype=t.dtype))
            outputs = self.model.outputs(on_rank)
        routing = list(self.model.trunk.route.losses.values())
        if batch.targets is None:
            how = "guessed"
        else:
            how = "traced" if self._can_trace(head, outputs, on_rank) else "run"
        head.watch = FiniteWatch()
        with self.mode, recorder:
            if how == "run":
                leaves = [t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.requires_grad]
                with unset_fake_temporarily():
                    gradients = _real_losses(head, outputs, batch, recorder)
                upstream = [torch.empty_like(t) for t in leaves]
                del outputs, gradients
                torch.autograd.backward(leaves + routing, upstream + [None] * len(routing))
                del leaves, upstream
            else:
                losses = (
                    _guessed(outputs) if how == "guessed" else list(head.losses(outputs, on_rank).values())
                )
                del outputs
                torch.stack([v.float() for v in (*losses, *routing)]).sum().backward()
                del losses
            recorder.begin(Place("end"))
        head.watch = FiniteWatch()
        del routing, on_rank
        return how

    def _can_trace(self, head: Any, outputs: Any, batch: TaskBatch) -> bool:
        """Whether the losses need no values; those that do raise on fake tensors, or hand them to NumPy."""
        head.watch = FiniteWatch()
        try:
            with self.mode:
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
def _marked(blocks: nn.Module, recorder: Recorder, moves_inputs: bool) -> Iterator[None]:
    own = {block: type(block) for block in blocks}
    for index, block in enumerate(own):
        block.__dict__["_marks"] = _Marks(recorder, index, index == len(own) - 1, moves_inputs)
        block.__class__ = _with_marked_call(type(block))
    try:
        yield
    finally:
        for block, block_class in own.items():
            block.__class__ = block_class
            del block.__dict__["_marks"]


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


def _real_losses(head: Any, outputs: Any, batch: TaskBatch, recorder: Recorder) -> Any:
    """Run the losses forwards and backwards on a few real images; return the gradients of the outputs."""
    images = min(len(batch), REAL_IMAGES)
    recorder.scale = len(batch) / images
    real = tree_map_only(Tensor, lambda t: _like(t, images / len(batch), batch), outputs)
    leaves = [t for t in tree_leaves(real) if isinstance(t, Tensor) and t.requires_grad]
    recorder.overlook(leaves)
    few = random_batch(head.info, images, tuple(batch.images_BCHW.shape[-2:]), boxes=boxes_of(batch))
    try:
        losses = head.losses(real, few)
        torch.stack([v.float() for v in losses.values()]).sum().backward()
    finally:
        recorder.scale = 1.0
    return [t.grad for t in leaves]


def _like(tensor: Tensor, share: float, batch: TaskBatch) -> Tensor:
    """Return random values where a fake tensor of the batch stands, for a share of its images."""
    if not tensor.requires_grad:
        return torch.full(tensor.shape, float(max(batch.images_BCHW.shape[-2:])))
    shape = (round(tensor.shape[0] * share), *tensor.shape[1:])
    return torch.empty(shape).uniform_(0.1, 0.9).to(tensor.dtype).requires_grad_()


def boxes_of(batch: TaskBatch) -> int:
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
