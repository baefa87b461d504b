"""The weights of a checkpoint, whole, in one process: for predictions before a run has finished."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ufo_large.distributed.checkpoint import naming_an_earlier, read_complete, read_rank, require_whole
from ufo_large.distributed.engine import Piece
from ufo_large.distributed.frozen_weights import frozen_weights
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
        others = ranks[0]["buffers"].keys() | spread.names
        readers = frozen_weights(checkpoint, written["engine"], len(ranks), others)
        frozen = {name: read() for name, read in readers.items()}
    return SavedWeights(spread, frozen, ranks[0]["buffers"])


def _shards(checkpoint: Path, kind: str, number: int, rank: dict[str, Any]) -> list[Tensor]:
    average = rank["state"]["ema"]
    if average is not None:
        return average["average"]
    return read_saved(checkpoint, kind, number, rank["layout"]).masters
