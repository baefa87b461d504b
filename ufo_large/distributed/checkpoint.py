"""Checkpoints that are whole or absent, and the consolidated weights of a sharded model.

A checkpoint folder holds the engine's files, one `rank-<r>.pt` a rank with everything else that a step
depends on, and `complete.json`, written last. A folder without that file is ignored.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ufo_large.distributed import comm
from ufo_large.distributed.engine import Engine

COMPLETE = "complete.json"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 1 << 30


def save_checkpoint(root: Path, step: int, engine: Engine, state: dict[str, Any], keep: int) -> Path:
    """Save after `step` finished steps; then drop all but the newest `keep` checkpoints. On all ranks."""
    folder = root / f"step-{step:08d}"
    if comm.is_main():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    comm.barrier()
    engine.save(folder)
    torch.save({"step": step, "state": state, "rng": rng_state()}, folder / f"rank-{comm.rank()}.pt")
    comm.barrier()
    if comm.is_main():
        (folder / COMPLETE).write_text(json.dumps({"step": step, "world_size": comm.world_size()}))
        for old in complete_checkpoints(root)[:-keep]:
            shutil.rmtree(old)
    return folder


def load_checkpoint(folder: Path, engine: Engine) -> tuple[int, dict[str, Any]]:
    """Restore engine and random generators; return (finished steps, this rank's state).

    Raises ValueError when the checkpoint was written on another number of ranks.
    """
    written = json.loads((folder / COMPLETE).read_text())
    if written["world_size"] != comm.world_size():
        raise ValueError(
            f"{folder}: written on {written['world_size']} ranks, now there are {comm.world_size()}; "
            f"start with --num_gpus {written['world_size']}"
        )
    engine.load(folder)
    saved = torch.load(folder / f"rank-{comm.rank()}.pt", map_location="cpu", weights_only=False)
    set_rng_state(saved["rng"])
    return saved["step"], saved["state"]


def complete_checkpoints(root: Path) -> list[Path]:
    """Return the whole checkpoints under `root`, oldest first."""
    return sorted(p.parent for p in root.glob(f"step-*/{COMPLETE}"))


def rng_state() -> dict[str, Any]:
    """Return the state of every generator that a step may draw from."""
    state = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def save_weights(folder: Path, engine: Engine) -> None:
    """Write the whole model as safetensors, gathered parameter by parameter: no rank holds all of it."""
    partial = folder.with_name(folder.name + ".partial")
    if comm.is_main():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    shard: dict[str, Tensor] = {}

    def flush() -> None:
        if shard:
            name = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
            save_file(shard, partial / name)
            weight_map.update(dict.fromkeys(shard, name))
            shard.clear()

    for name, tensor in engine.full_parameters():
        if comm.is_main():
            shard[name] = tensor.contiguous()
            if sum(t.nbytes for t in shard.values()) >= SHARD_BYTES:
                flush()
    if comm.is_main():
        flush()
        (partial / INDEX).write_text(json.dumps({"weight_map": weight_map}, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    comm.barrier()


def load_weights(folder: Path, fill: Callable[[str, Tensor], None]) -> None:
    """Call `fill(name, tensor)` for every tensor that `save_weights` wrote, file by file."""
    if not (folder / INDEX).exists():
        raise ValueError(f"{folder}: no weights here ({INDEX} is missing); has the run finished?")
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    for file in sorted(set(weight_map.values())):
        for name, tensor in load_file(folder / file).items():
            fill(name, tensor)
