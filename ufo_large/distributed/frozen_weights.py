"""The parameters in a checkpoint that no optimizer moves, and how a run takes them up again."""

import contextlib
import importlib
import math
from collections.abc import Container, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ufo_large.distributed.plain_files import read_plain


def frozen_weights(checkpoint: Path, kind: str, ranks: int, others: Container[str]) -> dict[str, Tensor]:
    """Return what no optimizer moves: whole in the first rank's file, under ZeRO-3 a part in each one's.

    `kind` of the engine that saved it, on so many `ranks`; `others`: names of what it moves, and of buffers.
    """
    if kind == "zero3":
        files = [_one(checkpoint, f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt") for rank in range(ranks)]
        parts = [read_plain(file, mmap=True) for file in files]
        shapes = parts[0]["frozen_param_shapes"] or {}
        flat = {n: torch.cat([part["frozen_param_fragments"][n].flatten() for part in parts]) for n in shapes}
        return {name: flat[name][: math.prod(shape)].view(shape) for name, shape in shapes.items()}
    if kind == "plain":
        saved = read_plain(checkpoint / "plain.pt", mmap=True)
    else:
        saved = read_plain(checkpoint / "deepspeed" / "mp_rank_00_model_states.pt", mmap=True)
    return {name: value for name, value in saved["module"].items() if name not in others}


@torch.no_grad()
def restore(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values into parameters of these names, sharded or not. On all ranks."""
    for name, value in values.items():
        parameter = module.get_parameter(name)
        with _whole(parameter):
            parameter.copy_(value)


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
