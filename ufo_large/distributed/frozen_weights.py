"""The parameters in a checkpoint that no optimizer moves, and how a run takes them up again."""

import contextlib
import importlib
import math
from collections.abc import Callable, Container, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ufo_large.distributed import comm
from ufo_large.distributed.plain_files import read_plain

Read = Callable[[], Tensor]


def frozen_weights(checkpoint: Path, kind: str, ranks: int, others: Container[str]) -> dict[str, Read]:
    """Return what reads each parameter that no optimizer moves, from files mapped into memory.

    Whole in the first rank's file, under ZeRO-3 a part in each one's. `kind` of the engine that saved it, on
    so many `ranks`; `others`: names of what it moves, and of buffers.
    """
    if kind == "zero3":
        files = [_one(checkpoint, f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt") for rank in range(ranks)]
        parts = [read_plain(file, mmap=True) for file in files]
        shapes = parts[0]["frozen_param_shapes"] or {}
        held = [part["frozen_param_fragments"] for part in parts]
        return {n: partial(_joined, [own[n] for own in held], shape) for n, shape in shapes.items()}
    if kind == "plain":
        saved = read_plain(checkpoint / "plain.pt", mmap=True)
    else:
        saved = read_plain(checkpoint / "deepspeed" / "mp_rank_00_model_states.pt", mmap=True)
    return {name: partial(_itself, value) for name, value in saved["module"].items() if name not in others}


def _itself(value: Tensor) -> Tensor:
    return value


def _joined(fragments: list[Tensor], shape: torch.Size) -> Tensor:
    return torch.cat([fragment.flatten() for fragment in fragments])[: math.prod(shape)].view(shape)


@torch.no_grad()
def restore(module: nn.Module, values: Mapping[str, Read]) -> None:
    """Copy values into parameters of these names, one whole at a time, sharded or not. On all ranks."""
    for name, read in values.items():
        parameter = module.get_parameter(name)
        is_sharded = hasattr(parameter, "ds_id")
        with _whole(parameter):
            if comm.is_main() or not is_sharded:  # of a sharded one the first rank's counts
                parameter.copy_(read())


def _whole(parameter: nn.Parameter) -> contextlib.AbstractContextManager:
    if not hasattr(parameter, "ds_id"):
        return contextlib.nullcontext()
    return importlib.import_module("ufo_large.distributed.zero").gathered([parameter], modify=True)


def _one(checkpoint: Path, name: str) -> Path:
    """Return a file of DeepSpeed's, whatever dtype its name begins with. Raises FileNotFoundError."""
    found = sorted((checkpoint / "deepspeed").glob(f"*{name}"))
    if len(found) != 1:
        raise FileNotFoundError(f"{checkpoint / 'deepspeed' / name} is missing")
    return found[0]
