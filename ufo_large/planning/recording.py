"""Write down what a computation allocates, frees and works, operation by operation.

Under torch's FakeTensorMode nothing is computed, so a step of a billion parameters takes seconds on a CPU.
What is written does not depend on the GPU: sizes of storages in their order, and operations by their kind.
"""

import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

_aten = torch.ops.aten
_CPU_ATTENTION = _aten._scaled_dot_product_flash_attention_for_cpu
_CPU_ATTENTION_BACKWARD = _aten._scaled_dot_product_flash_attention_for_cpu_backward
_DEVICE_OF = torch.ops.prim.device.default
_INTO = ("mm", "addmm", "bmm", "baddbmm", "_scaled_mm")


class Place(NamedTuple):
    """Where in a pass: `front`, `behind`, `losses` or `end`, or, of a block, `forward` or `backward`."""

    part: str
    block: int = -1


class Key(NamedTuple):
    """A storage: the place where it was made, and its number there."""

    place: Place
    number: int


class Event(NamedTuple):
    """`size` bytes are allocated, or, where it is 0, freed; a parameter's `gradient` may be kept longer.

    `is_back`: the allocation is for what comes back from host memory.
    """

    key: Key
    size: int
    gradient: bool = False
    is_back: bool = False


class Work(NamedTuple):
    """One operation: `kind` is `matrix`, `attention`, `convolution` or `elementwise`; bytes read and written.

    `tokens`: of attention, the length of its sequence.
    """

    kind: str
    flops: int
    bytes: int
    is_float32: bool = False
    tokens: int = 0


@dataclass
class Segment:
    """What happened at one place, in order, and the operations that ran there, counted."""

    place: Place
    events: list[Event] = field(default_factory=list)
    work: Counter[Work] = field(default_factory=Counter)


class Recorder(TorchDispatchMode):
    """Records all that runs inside, in `segments`; `begin` opens the next one.

    Storages that were there before are not its own: it sees neither them nor their end. `scale`: sizes and
    operations that are written down are so many times those that run.
    """

    def __init__(self, known: Iterable[Tensor] = (), scale: float = 1.0):
        super().__init__()
        self.segments: list[Segment] = []
        self.scale = scale
        self._keys: dict[int, Key | None] = {}
        self._counts: Counter[Place] = Counter()
        self.overlook(known)
        self.begin(Place("front"))

    def begin(self, place: Place) -> None:
        """Record what follows under `place`."""
        self.segments.append(Segment(place))

    def insert(self, segment: Segment) -> None:
        """Take in what was recorded apart, all of whose storages are freed in it."""
        here = self.segments[-1].place
        self.segments.append(segment)
        self.begin(here)

    def overlook(self, tensors: Iterable[Tensor]) -> None:
        """Take storages as counted elsewhere."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._keys:
                self._keys[storage._cdata] = None
                weakref.finalize(storage, self._keys.pop, storage._cdata, None)

    def free_gradient(self, gradient: Tensor) -> None:
        """Note that a parameter's gradient is handed over; whoever keeps it longer knows by its mark."""
        self._free(gradient.untyped_storage()._cdata, gradient=True)

    def move_away(self, tensor: Tensor) -> int:
        """Free a storage on paper, as if it were copied to the host; return its bytes, 0 where unknown."""
        storage = tensor.untyped_storage()
        return storage.nbytes() if self._free(storage._cdata) else 0

    def move_back(self, tensor: Tensor) -> None:
        """Allocate it again."""
        storage = tensor.untyped_storage()
        self._keys.pop(storage._cdata, None)
        self._note(storage, is_back=True)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation == _DEVICE_OF:  # asked at every turn, and answered slowly further down
            return args[0].fake_device
        result = operation(*args, **(kwargs or {}))
        outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        for output in outputs:
            self._note(output.untyped_storage())
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if _runs_a_kernel(operation, inputs, outputs):
            work = work_of(operation, args, kwargs or {}, result, inputs, outputs)
            if work.bytes or work.flops:
                self.segments[-1].work[self._scaled(work)] += 1
        return result

    def _scaled(self, work: Work) -> Work:
        if self.scale == 1.0:
            return work
        return work._replace(flops=round(work.flops * self.scale), bytes=round(work.bytes * self.scale))

    def _note(self, storage: torch.UntypedStorage, is_back: bool = False) -> None:
        address, size = storage._cdata, round(storage.nbytes() * self.scale)
        if address in self._keys or not size:
            return
        place = self.segments[-1].place
        key = Key(place, self._counts[place])
        self._counts[place] += 1
        self._keys[address] = key
        self.segments[-1].events.append(Event(key, size, is_back=is_back))
        weakref.finalize(storage, self._gone, address, key)

    def _gone(self, address: int, key: Key) -> None:
        """Forget a storage that is no more: its address will be another's."""
        if self._keys.get(address) == key:
            self._free(address)
        if self._keys.get(address) is None:
            self._keys.pop(address, None)

    def _free(self, address: int, gradient: bool = False) -> bool:
        key = self._keys.get(address)
        if key is None:
            return False
        self.segments[-1].events.append(Event(key, 0, gradient))
        self._keys[address] = None
        return True


def _runs_a_kernel(operation: Any, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    """Whether an operation does more than to say how a storage is seen, or to ask for a device or size."""
    if operation._schema.is_mutable:
        return True
    there = {t.untyped_storage()._cdata for t in inputs}
    return any(t.untyped_storage()._cdata not in there for t in outputs)


def work_of(
    operation: Any, args: Any, kwargs: Any, result: Any, inputs: list[Tensor], outputs: list[Tensor]
) -> Work:
    """Return what an operation costs; fused multiply-adds count twice, as in torch's own counter."""
    moved = sum(map(_bytes, {id(t): t for t in (*inputs, *outputs)}.values()))
    packet = operation._overloadpacket
    if packet in (_CPU_ATTENTION, _CPU_ATTENTION_BACKWARD):
        return _attention(packet, args, moved)
    if packet not in flop_registry:
        is_made_only = not inputs and operation.namespace == "aten" and "empty" in str(packet)
        return Work("elementwise", 0, 0 if is_made_only else moved)
    flops = flop_registry[packet](*args, **kwargs, out_val=result)
    name = str(packet).rpartition(".")[2]
    kind = "matrix" if name in _INTO else "attention" if "attention" in name else "convolution"
    return Work(kind, flops, moved, is_float32=inputs[0].dtype == torch.float32)


def _attention(packet: Any, args: Any, moved: int) -> Work:
    if packet == _CPU_ATTENTION:
        query, key, value = args[:3]
        flops = sdpa_flop_count(query.shape, key.shape, value.shape)
    else:
        upstream, query, key, value = args[:4]
        flops = sdpa_backward_flop_count(upstream.shape, query.shape, key.shape, value.shape)
    return Work("attention", flops, moved, query.dtype == torch.float32, tokens=key.shape[-2])


def _bytes(tensor: Tensor) -> int:
    """Return the bytes that reading or writing a tensor moves; what is expanded is read once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
