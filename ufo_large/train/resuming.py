"""Which checkpoint a run goes on from."""

from pathlib import Path

from ufo_large.config import did_you_mean
from ufo_large.distributed import comm
from ufo_large.distributed.checkpoint import COMPLETE, complete_checkpoints, read_complete, verify_checkpoint
from ufo_large.runs.folder import RunFolder


def choose_checkpoint(folder: RunFolder, resume: str) -> Path | None:
    """Return the checkpoint to go on from, its files unread but complete.json.

    ValueError where the folder holds a run and nothing was said.
    """
    found = complete_checkpoints(folder.checkpoints)
    if resume == "none" and found:
        raise ValueError(f"{folder.root} holds a run; go on with --resume auto or give another --workdir")
    if resume in ("none", "auto") and not found and folder.weights.exists():
        raise ValueError(
            f"{folder.root} holds the weights of a finished run but no checkpoint to go on from; give "
            f"another --workdir, and --set pretrained={folder.weights} to start from these weights"
        )
    if resume == "none":
        return None
    if resume == "auto":
        listed = [checkpoint for checkpoint in found if _is_listed(checkpoint)]
        if found and not listed:
            raise ValueError(f"{found[-1] / COMPLETE}: damaged, as those before; {_no_other(folder)}")
        return listed[-1] if listed else None
    chosen = Path(resume)
    for checkpoint in found:
        if checkpoint.resolve() == chosen.resolve():  # what is returned bears its own name, not a link's
            return checkpoint
    hint = did_you_mean(chosen.name, [f.name for f in found])
    raise ValueError(f"--resume {resume}: no whole checkpoint of {folder.root}.{hint}")


def _is_listed(checkpoint: Path) -> bool:
    """Whether complete.json can be read; `whole_checkpoint` tells what is wrong with it where not."""
    try:
        read_complete(checkpoint)
    except ValueError:
        return False
    return True


def require_same(checkpoint: Path | None) -> None:
    """Raise ValueError on all ranks where they would go on from different checkpoints."""
    names = comm.all_gather_objects(None if checkpoint is None else checkpoint.name)
    if len(set(names)) > 1:
        raise ValueError(
            f"the ranks see different checkpoints ({', '.join(map(str, names))}): --workdir must lie on a "
            "disk that all machines share"
        )


def whole_checkpoint(folder: RunFolder, chosen: Path, resume: str) -> Path:
    """Return `chosen` where all its files are as they were written; each rank reads its share of them.

    With `--resume auto` it is the newest such checkpoint, and what is wrong with those after it is told.
    Raises ValueError, on all ranks, where there is none. Nothing is changed. On all ranks.
    """
    if resume != "auto":
        verify_checkpoint(chosen)
        return chosen
    # as the first rank sees them: all ranks must try the same ones
    names = comm.all_gather_objects([f.name for f in complete_checkpoints(folder.checkpoints)])[0]
    for older in reversed(range(len(names))):
        checkpoint = folder.checkpoints / names[older]
        before = f"--resume auto takes the one before, {names[older - 1]}"
        try:
            verify_checkpoint(checkpoint, before if older else _no_other(folder))
            break
        except comm.AgreedError as error:
            if not older:
                raise
            if comm.is_main():
                print(error)
    return checkpoint


def _no_other(folder: RunFolder) -> str:
    best = (
        f", and --set pretrained={folder.best} to start from its best weights" if folder.best.exists() else ""
    )
    return f"no checkpoint of {folder.root} is whole: give another --workdir{best}"
