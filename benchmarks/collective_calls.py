"""Note what a rank says to the others: every collective of torch.distributed, in order."""

import hashlib
from collections import Counter
from typing import NamedTuple
from unittest import mock

import torch
import torch.distributed as dist
from deepspeed.runtime.zero import partitioned_param_coordinator as coordinator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CLAIM = "assert_ints_same_as_other_ranks"


class Call(NamedTuple):
    """One collective: elements of the whole tensors; `group`: how many ranks, and their distance."""

    kind: str
    dtype: str
    numel: int
    group: tuple[int, int]


class Collectives(TorchDispatchMode):
    """Note the collectives issued inside, in order, with the bytes of the whole tensors."""

    def __init__(self):
        super().__init__()
        self.order: list[Call] = []
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.namespace == "c10d":
            kind = operation._schema.name.removeprefix("c10d::").strip("_").removesuffix("_base")
            self._note(kind, [*args, *(kwargs or {}).values()])
        return operation(*args, **(kwargs or {}))

    def _note(self, kind: str, args: list) -> None:
        sides = [[t for t in tree_leaves(a) if isinstance(t, torch.Tensor)] for a in args]
        whole = max(sides, key=lambda side: sum(t.nbytes for t in side))
        size = sum(t.nbytes for t in whole)
        self.calls[kind] += 1
        self.bytes[kind] += size
        dtype = str(whole[0].dtype).removeprefix("torch.") if whole else "none"
        self.order.append(Call(kind, dtype, sum(t.numel() for t in whole), group_of(args)))

    def __enter__(self):
        self._claims = mock.patch.object(coordinator, CLAIM, self._note_claim)
        self._claims.start()
        return super().__enter__()

    def __exit__(self, *exception):
        self._claims.stop()
        return super().__exit__(*exception)

    def _note_claim(self, numbers: list[int]) -> None:
        """Keep the order of modules or parameters that DeepSpeed would compare with rank 0's."""
        self.order.append(Call(f"claim {hash(tuple(numbers))}", "int64", len(numbers), (0, 0)))

    def bytes_across_nodes(self, kind: str, ranks_per_node: int) -> int:
        """Return the bytes of what a kind of collective moves among more than one node's ranks."""
        wide = [c for c in self.order if c.kind == kind and c.group[0] * c.group[1] > ranks_per_node]
        return sum(c.numel * getattr(torch, c.dtype).itemsize for c in wide)

    def digest(self) -> str:
        """Return a hash of what was issued, in order; ranks that differ in it would wait for ever."""
        return hashlib.sha256(repr(self.order).encode()).hexdigest()[:16]


def group_of(args: list) -> tuple[int, int]:
    """Return size and distance of the ranks that an operation joins. Raises where this rank is not one."""
    scripted = next(a for a in args if isinstance(a, torch.ScriptObject) and "ProcessGroup" in str(a._type()))
    ranks = dist.get_process_group_ranks(dist.ProcessGroup.unbox(scripted))
    if dist.get_rank() not in ranks:
        raise RuntimeError(f"rank {dist.get_rank()} takes part in a collective of the ranks {ranks}")
    return len(ranks), ranks[1] - ranks[0] if len(ranks) > 1 else 0
