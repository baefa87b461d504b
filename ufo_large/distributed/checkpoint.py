"""Checkpoints that are whole or absent, and the consolidated weights of a sharded model.

A checkpoint folder holds the engine's files, one `rank-<r>.pt` per rank with everything else that a step
depends on, and `complete.json`, written last, with size and SHA-256 of every other file and of itself. A
folder without that file is ignored; see saving.py for how they are written.
"""

import contextlib
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ufo_large.config import give_usual_rights, read_json, require_inside, write_json
from ufo_large.distributed import comm
from ufo_large.distributed.checksums import Stamp, fault_of, sealed, sync_tree
from ufo_large.distributed.engine import Engine, Layout, Piece
from ufo_large.distributed.frozen_weights import frozen_weights, restore
from ufo_large.distributed.generators import set_rng_state
from ufo_large.distributed.plain_files import read_plain
from ufo_large.distributed.resharding import Spread, read_saved, reshard
from ufo_large.distributed.weight_sums import INDEX, index_body, remedy_for, whole_files

COMPLETE = "complete.json"
SHARD_BYTES = 1 << 30

T = TypeVar("T")


def finished_steps(folder: Path) -> int:
    """Return after how many steps the checkpoint was saved."""
    return read_complete(folder)["step"]


def is_sharded_alike(folder: Path, kind: str) -> bool:
    """Whether the checkpoint comes from this number of ranks and this kind of engine."""
    written = read_complete(folder)
    return (written["world_size"], written["engine"]) == (comm.world_size(), kind)


def read_complete(folder: Path, remedy: str | None = None) -> dict[str, Any]:
    """Return what was written last. ValueError names the file where it is not whole, and the remedy.

    `files` is empty in a checkpoint of an earlier version, which wrote no checksums.
    """
    file, remedy = folder / COMPLETE, _remedy(folder) if remedy is None else remedy
    match read_json(file, remedy):
        case {"step": int(), "world_size": int(), "engine": str(), **rest} as written:
            if rest and sealed(written) != written:
                raise ValueError(f"{file}: damaged, its SHA-256 is not that of what was written; {remedy}")
            return written | {"files": _stamps(folder, rest.get("files", {}), remedy)}
    raise ValueError(f"{file}: not what a checkpoint ends with (step, world_size, engine); {remedy}")


def _stamps(folder: Path, files: Any, remedy: str) -> dict[Path, tuple[int, Stamp]]:
    """Return which rank wrote which file, and what it holds."""
    found = {}
    for name, entry in files.items() if isinstance(files, dict) else [(files, None)]:
        match entry:
            case {"bytes": int(size), "sha256": str(digest), "rank": int(rank)}:
                found[require_inside(folder, name, folder / COMPLETE)] = rank, Stamp(size, digest)
            case _:
                raise ValueError(f"{folder / COMPLETE}: {name!r} is no file with its checksum; {remedy}")
    return found


def require_whole(folder: Path, share: int = 0, shares: int = 1, remedy: str | None = None) -> None:
    """Raise ValueError, with the remedy, where a file is not as it was written, or not there.

    Reads the files of ranks `share`, `share + shares` and so on, all of each; communicates nothing. A
    checkpoint of an earlier version has no checksums, which the first share tells on stderr.
    """
    remedy = _remedy(folder) if remedy is None else remedy
    files = read_complete(folder, remedy)["files"]
    if not files and not share:
        told = "saved by an earlier version, without checksums; damage to it may go unseen"
        print(f"{folder}: {told}", file=sys.stderr)  # not where a program writes its results
    for file, (rank, stamp) in files.items():
        if rank % shares == share:
            with naming_an_earlier(folder, remedy):
                if told := fault_of(file, stamp):
                    raise OSError(f"{file.relative_to(folder)} {told}")


def verify_checkpoint(folder: Path, remedy: str | None = None) -> None:
    """Raise ValueError on all ranks where a file is not as it was written; each reads its share of them."""
    comm.agreed(lambda: require_whole(folder, comm.rank(), comm.world_size(), remedy))


def is_laid_out_alike(folder: Path, engine: Engine) -> bool:
    """Whether moreover every rank's shards hold the same pieces: other parameter groups move them."""
    if not is_sharded_alike(folder, engine.kind):
        return False
    own = _agreed_reading(folder, lambda: read_rank(folder, comm.rank()))
    return all(comm.all_gather_objects(own["layout"] == engine.layout()))


def load_checkpoint(folder: Path, engine: Engine, verify: bool = True) -> tuple[int, dict[str, Any]]:
    """Restore engine and random generators; return (finished steps, this rank's state).

    Before anything is restored every file is compared with its checksum, a share of them by each rank: of
    as many ranks as saved it each reads its own. `verify=False` where the caller has just done so.

    A checkpoint from the same number of ranks, laid out alike, continues bitwise. From another number, or
    another ZeRO stage, weights, frozen ones too, moments and average are carried over exactly; what ranks
    draw for themselves (dropped paths) goes on from rank 0's generators, apart. Raises ValueError that names
    the last earlier checkpoint where a file of this one is missing or damaged, on every rank.
    """
    if verify:
        verify_checkpoint(folder)
    if not is_laid_out_alike(folder, engine):
        return _load_resharded(folder, engine)
    _agreed_reading(folder, lambda: engine.check_files(folder))
    with naming_an_earlier(folder):
        engine.load(folder)
    saved = _agreed_reading(folder, lambda: read_rank(folder, comm.rank(), mmap=False))
    set_rng_state(saved["rng"])
    return saved["step"], saved["state"]


def _load_resharded(folder: Path, engine: Engine) -> tuple[int, dict[str, Any]]:
    ranks, average = _agreed_reading(folder, lambda: _reshard(folder, engine))
    engine.publish_masters()
    restore(engine.module, _agreed_reading(folder, lambda: _frozen(folder, ranks)))
    engine.module.load_state_dict(ranks[0]["buffers"], strict=False)
    set_rng_state(ranks[0]["rng"])
    torch.manual_seed(int(torch.randint(1 << 62, ())) + comm.rank())
    own = ranks[comm.rank() if comm.rank() < len(ranks) else 0]
    return own["step"], own["state"] | {"ema": average}


def _reshard(folder: Path, engine: Engine) -> tuple[list[dict[str, Any]], dict[str, list[Tensor]] | None]:
    """Fill this rank's shards; return what every rank saved, and this rank's part of the average."""
    written = read_complete(folder)
    ranks = [read_rank(folder, r) for r in range(written["world_size"])]
    layouts = [rank["layout"] for rank in ranks]
    reshard(engine, [read_saved(folder, written["engine"], r, layout) for r, layout in enumerate(layouts)])
    return ranks, _resharded_average(ranks, layouts, engine)


def _frozen(folder: Path, ranks: list[dict[str, Any]]) -> dict[str, Callable[[], Tensor]]:
    moved = {piece.name for rank in ranks for pieces in rank["layout"] for piece in pieces}
    others = moved | ranks[0]["buffers"].keys()
    return frozen_weights(folder, read_complete(folder)["engine"], len(ranks), others)


def rank_file(folder: Path, rank: int) -> Path:
    """Return where a rank saves what is not the engine's."""
    return folder / f"rank-{rank}.pt"


def read_rank(folder: Path, rank: int, mmap: bool = True) -> dict[str, Any]:
    """Return what a rank saved beside the engine's files: `step`, `state`, `rng`, `layout`, `buffers`."""
    saved = read_plain(rank_file(folder, rank), mmap=mmap)
    layout = tuple(tuple(Piece(*piece) for piece in pieces) for pieces in saved["layout"])
    return saved | {"layout": layout}


def _agreed_reading(folder: Path, read: Callable[[], T]) -> T:
    """Return `read()`, or raise on every rank what a file told one of them, with the remedy."""

    def named() -> T:
        with naming_an_earlier(folder):
            return read()

    return comm.agreed(named)


@contextlib.contextmanager
def naming_an_earlier(folder: Path, remedy: str | None = None) -> Iterator[None]:
    """Turn what is said of a file that is cut off or damaged into ValueError with the remedy."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = _remedy(folder) if remedy is None else remedy
        raise ValueError(f"{folder}: this checkpoint cannot be read ({said}); {remedy}") from error


def _remedy(folder: Path) -> str:
    earlier = [f"--resume {p}" for p in complete_checkpoints(folder.parent) if p.name < folder.name]
    return f"go on from an earlier one, {earlier[-1]}" if earlier else "give another --workdir"


def _resharded_average(
    ranks: list[dict[str, Any]], layouts: list[Layout], engine: Engine
) -> dict[str, list[Tensor]] | None:
    if ranks[0]["state"]["ema"] is None:
        return None
    average = [torch.zeros_like(shard, device="cpu") for shard in engine.master_shards()]
    spread = Spread(layouts, [rank["state"]["ema"]["average"] for rank in ranks])
    spread.copy_into(engine.layout(), average)
    return {"average": average}


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
    named = (p.parent for p in root.glob(f"step-*/{COMPLETE}"))
    return sorted(p for p in named if p.name.removeprefix("step-").isdecimal())


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
            give_usual_rights(partial / name)
            weight_map.update(dict.fromkeys(shard, name))
            shard.clear()

    for name, tensor in engine.full_parameters():
        if comm.is_main():
            shard[name] = tensor.contiguous()
            if sum(t.nbytes for t in shard.values()) >= SHARD_BYTES:
                flush()
    if comm.is_main():
        flush()
        write_json(partial / INDEX, index_body(partial, weight_map))
        sync_tree(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    comm.barrier()


def load_weights(folder: Path, fill: Callable[[str, Tensor], None]) -> None:
    """Call `fill(name, tensor)` for every tensor that `save_weights` wrote, file by file.

    Raises ValueError, before the first, where a file is not as it was written.
    """
    if not (folder / INDEX).exists():
        raise ValueError(f"{folder}: no weights here ({INDEX} is missing); has the run finished?")
    for file in whole_files(folder):
        try:
            tensors = load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file}: cannot be read ({error}); {remedy_for(folder)}") from error
        for name, tensor in tensors.items():
            fill(name, tensor)
