"""Carry a sharded optimizer onto another number of ranks, or another ZeRO stage.

Master weights, their moments and their average are flat shards on each rank. A checkpoint notes which part of
which parameter lies where in them, so any other sharding finds its elements again by the parameter's name.
Files are mapped into memory and read only where a rank needs them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ufo_large.distributed.engine import Engine, Layout
from ufo_large.distributed.plain_files import read_plain


@dataclass(frozen=True, slots=True)
class Saved:
    """What one rank wrote: its master shards, and beside each the optimizer's state of it, by name."""

    layout: Layout
    masters: list[Tensor]
    states: list[dict[str, Tensor]]


class Spread:
    """Values that lie in the shards of several ranks."""

    def __init__(self, layouts: Sequence[Layout], shards: Sequence[Sequence[Tensor]]):
        self._parts: dict[str, list[tuple[int, Tensor]]] = defaultdict(list)
        for layout, own in zip(layouts, shards, strict=True):
            for pieces, shard in zip(layout, own, strict=True):
                for piece in pieces:
                    part = shard.view(-1)[piece.offset : piece.offset + piece.count]
                    self._parts[piece.name].append((piece.start, part))

    @property
    def names(self) -> frozenset[str]:
        """The parameters of which there are values."""
        return frozenset(self._parts)

    @torch.no_grad()
    def copy_into(self, layout: Layout, shards: Sequence[Tensor]) -> None:
        """Fill `shards`, laid out by `layout`. ValueError names a parameter that is not there in full."""
        for pieces, shard in zip(layout, shards, strict=True):
            for piece in pieces:
                target = shard.view(-1)[piece.offset : piece.offset + piece.count]
                if self._copy(piece.name, piece.start, target) != piece.count:
                    raise ValueError(f"the checkpoint lacks values of {piece.name}; choose another one")

    def _copy(self, name: str, start: int, target: Tensor) -> int:
        copied, stop = 0, start + len(target)
        for at, part in self._parts[name]:
            low, high = max(at, start), min(at + len(part), stop)
            if low < high:
                target[low - start : high - start].copy_(part[low - at : high - at])
                copied += high - low
        return copied


def reshard(engine: Engine, saved: Sequence[Saved]) -> None:
    """Give this rank's shards what all ranks of another sharding wrote; the engine then publishes them."""
    layout, masters, states = engine.layout(), engine.master_shards(), engine.optimizer_states()
    layouts = [one.layout for one in saved]
    Spread(layouts, [one.masters for one in saved]).copy_into(layout, masters)
    for name, value in saved[0].states[0].items():
        if not value.dim():  # a count of steps, the same everywhere
            for state, master in zip(states, masters, strict=True):
                state[name] = value.to(master.device, copy=True)  # where a fused step wants it
            continue
        for state, master in zip(states, masters, strict=True):
            state[name] = torch.zeros_like(master)
        moments = [[state[name] for state in one.states] for one in saved]
        Spread(layouts, moments).copy_into(layout, [state[name] for state in states])


def read_saved(folder: Path, kind: str, rank: int, layout: Layout) -> Saved:
    """Read what rank `rank` of an engine of `kind` saved, mapped into memory."""
    if kind == "plain":
        state = read_plain(folder / "plain.pt", mmap=True)
        masters = [state["module"][pieces[0].name] for pieces in layout]
        return Saved(layout, masters, _in_order(state["optimizer"]))
    state = read_plain(optimizer_file(folder, rank), mmap=True)["optimizer_state_dict"]
    if kind == "zero3":
        return Saved(layout, state["fp32_flat_groups"], _in_order(state["optimizer_state_dict"]))
    return Saved(layout, state["single_partition_of_fp32_groups"], _in_order(state["base_optimizer_state"]))


def optimizer_file(folder: Path, rank: int) -> Path:
    """Return where DeepSpeed wrote rank `rank`'s shards, whatever their dtype. Raises FileNotFoundError."""
    name = f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
    found = sorted((folder / "deepspeed").glob(f"*{name}"))
    if len(found) != 1:
        raise FileNotFoundError(f"{folder / 'deepspeed' / name} is missing")
    return found[0]


def _in_order(optimizer: dict[str, Any]) -> list[dict[str, Tensor]]:
    return [optimizer["state"][i] for i in sorted(optimizer["state"])]
