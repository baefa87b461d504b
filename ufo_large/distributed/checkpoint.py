"""Checkpoints that are whole or absent, and the consolidated weights of a sharded model.

A checkpoint folder holds the engine's files, one `rank-<r>.pt` a rank with everything else that a step
depends on, and `complete.json`, written last. A folder without that file is ignored.
"""

import contextlib
import json
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ufo_large.distributed import comm
from ufo_large.distributed.engine import Engine, Layout
from ufo_large.distributed.resharding import Spread, load_mapped, read_saved, reshard

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
    own = {"step": step, "state": state, "rng": rng_state(), "layout": engine.layout()}
    own["buffers"] = _persistent_buffers(engine) if comm.is_main() else {}
    torch.save(own, folder / f"rank-{comm.rank()}.pt")
    comm.barrier()
    if comm.is_main():
        written = {"step": step, "world_size": comm.world_size(), "engine": engine.kind}
        (folder / COMPLETE).write_text(json.dumps(written))
        for old in complete_checkpoints(root)[:-keep]:
            shutil.rmtree(old)
    return folder


def finished_steps(folder: Path) -> int:
    """Return after how many steps the checkpoint was saved."""
    return json.loads((folder / COMPLETE).read_text())["step"]


def is_sharded_alike(folder: Path, kind: str) -> bool:
    """Whether the checkpoint comes from this number of ranks and this kind of engine."""
    written = json.loads((folder / COMPLETE).read_text())
    return (written["world_size"], written["engine"]) == (comm.world_size(), kind)


def is_laid_out_alike(folder: Path, engine: Engine) -> bool:
    """Whether moreover every rank's shards hold the same pieces: other parameter groups move them."""
    if not is_sharded_alike(folder, engine.kind):
        return False
    with naming_an_earlier(folder):
        layout = load_mapped(folder / f"rank-{comm.rank()}.pt")["layout"]
    return all(comm.all_gather_objects(layout == engine.layout()))


def load_checkpoint(folder: Path, engine: Engine) -> tuple[int, dict[str, Any]]:
    """Restore engine and random generators; return (finished steps, this rank's state).

    A checkpoint from the same number of ranks, laid out alike, continues bitwise. From another number, or
    another ZeRO stage, weights, moments and average are carried over exactly and frozen weights stay as they
    are; what ranks draw for themselves (dropped paths) goes on from rank 0's generators, apart. Raises
    ValueError that names the last earlier checkpoint where a file of this one is damaged.
    """
    with naming_an_earlier(folder):
        return _load_checkpoint(folder, engine)


@contextlib.contextmanager
def naming_an_earlier(folder: Path) -> Iterator[None]:
    """Turn what torch says of a file that is cut off or damaged into ValueError with the remedy."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        earlier = [f"--resume {p}" for p in complete_checkpoints(folder.parent) if p.name < folder.name]
        remedy = f"go on from an earlier one, {earlier[-1]}" if earlier else "give another --workdir"
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{folder}: this checkpoint cannot be read ({said}); {remedy}") from error


def _load_checkpoint(folder: Path, engine: Engine) -> tuple[int, dict[str, Any]]:
    if is_laid_out_alike(folder, engine):
        engine.load(folder)
        saved = torch.load(folder / f"rank-{comm.rank()}.pt", map_location="cpu", weights_only=False)
        set_rng_state(saved["rng"])
        return saved["step"], saved["state"]
    written = json.loads((folder / COMPLETE).read_text())
    ranks = [load_mapped(folder / f"rank-{r}.pt") for r in range(written["world_size"])]
    layouts = [rank["layout"] for rank in ranks]
    reshard(engine, [read_saved(folder, written["engine"], r, layout) for r, layout in enumerate(layouts)])
    engine.module.load_state_dict(ranks[0]["buffers"], strict=False)
    set_rng_state(ranks[0]["rng"])
    torch.manual_seed(int(torch.randint(1 << 62, ())) + comm.rank())
    own = ranks[comm.rank() if comm.rank() < len(ranks) else 0]
    return own["step"], own["state"] | {"ema": _resharded_average(ranks, layouts, engine)}


def _resharded_average(
    ranks: list[dict[str, Any]], layouts: list[Layout], engine: Engine
) -> dict[str, list[Tensor]] | None:
    if ranks[0]["state"]["ema"] is None:
        return None
    average = [torch.zeros_like(shard, device="cpu") for shard in engine.master_shards()]
    spread = Spread(layouts, [rank["state"]["ema"]["average"] for rank in ranks])
    spread.copy_into(engine.layout(), average)
    return {"average": average}


def _persistent_buffers(engine: Engine) -> dict[str, Tensor]:
    kept = engine.module.state_dict().keys()
    return {name: buffer.cpu() for name, buffer in engine.module.named_buffers() if name in kept}


def set_aside_later(chosen: Path) -> list[Path]:
    """Rename the checkpoints of later steps, so that no resume takes up the branch that was left.

    Returns their new places.
    """
    return [set_aside(p) for p in complete_checkpoints(chosen.parent) if p.name > chosen.name]


def set_aside(folder: Path) -> Path:
    """Rename a folder to left-<n>-<its name>; return its new place."""
    names = (folder.with_name(f"left-{n}-{folder.name}") for n in count(1))
    return folder.rename(next(name for name in names if not name.exists()))


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
        try:
            tensors = load_file(folder / file)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{folder / file}: cannot be read ({error}); copy it again, or remove {folder} and let the "
                "run write it anew with --resume auto"
            ) from error
        for name, tensor in tensors.items():
            fill(name, tensor)
