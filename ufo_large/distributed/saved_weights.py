"""The weights of a checkpoint, whole, in one process: for predictions before a run has finished."""

import importlib
import math
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ufo_large.distributed.checkpoint import naming_an_earlier, read_complete, read_rank, require_whole
from ufo_large.distributed.engine import Piece
from ufo_large.distributed.plain_files import read_plain
from ufo_large.distributed.resharding import Spread, read_saved


@dataclass(frozen=True, slots=True)
class SavedWeights:
    """Float32 weights as all ranks of a run saved them, mapped into memory.

    They are the average where the run keeps one, as in its final `weights/`, else what the optimizer moves,
    before it is rounded to the dtype of training. `frozen`: the parameters that it does not move.
    """

    spread: Spread
    frozen: dict[str, Tensor]
    buffers: dict[str, Tensor]

    @property
    def names(self) -> frozenset[str]:
        return self.spread.names | self.frozen.keys()

    @torch.no_grad()
    def copy_into(self, model: nn.Module) -> None:
        """Fill a model whose parameters are whole. ValueError names one that is not saved in full."""
        moved = {name: p for name, p in model.named_parameters() if name not in self.frozen}
        layout = tuple((Piece(name, 0, 0, p.numel()),) for name, p in moved.items())
        self.spread.copy_into(layout, [p.data for p in moved.values()])
        for name, value in self.frozen.items():
            model.get_parameter(name).copy_(value)
        model.load_state_dict(self.buffers, strict=False)


def read_saved_weights(checkpoint: Path) -> SavedWeights:
    """Read the weights of a whole checkpoint of any number of ranks and any ZeRO stage.

    Raises ValueError where a file is not as it was written.
    """
    require_whole(checkpoint)
    written = read_complete(checkpoint)
    if written["engine"] != "plain":
        importlib.import_module("ufo_large.distributed.zero")  # declares harmless what DeepSpeed pickles
    with naming_an_earlier(checkpoint):
        ranks = [read_rank(checkpoint, rank) for rank in range(written["world_size"])]
        shards = [_shards(checkpoint, written["engine"], number, rank) for number, rank in enumerate(ranks)]
        spread = Spread([rank["layout"] for rank in ranks], shards)
        frozen = _frozen(checkpoint, written["engine"], len(ranks), ranks[0]["buffers"].keys() | spread.names)
    return SavedWeights(spread, frozen, ranks[0]["buffers"])


def _shards(checkpoint: Path, kind: str, number: int, rank: dict[str, Any]) -> list[Tensor]:
    average = rank["state"]["ema"]
    if average is not None:
        return average["average"]
    return read_saved(checkpoint, kind, number, rank["layout"]).masters


def _frozen(checkpoint: Path, kind: str, ranks: int, others: Container[str]) -> dict[str, Tensor]:
    """Return what no optimizer moves: whole in the first rank's file, under ZeRO-3 a part in each one's."""
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


def _one(checkpoint: Path, name: str) -> Path:
    """Return a file of DeepSpeed's, whatever dtype its name begins with. Raises FileNotFoundError."""
    found = sorted((checkpoint / "deepspeed").glob(f"*{name}"))
    if len(found) != 1:
        raise FileNotFoundError(f"{checkpoint / 'deepspeed' / name} is missing")
    return found[0]
