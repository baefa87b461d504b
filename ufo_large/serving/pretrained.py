"""A trained model in a folder of its own: config.json, model.safetensors, and a card for people.

Such a folder can be moved, and uploaded to Hugging Face's hub as it is. Opening one reads a typed config and
tensors; nothing in it is run.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download

from ufo_large.config import read_json, write_json, write_text_whole
from ufo_large.distributed.checkpoint import COMPLETE, complete_checkpoints
from ufo_large.evaluation.loading import filled, find_checkpoint, load_run
from ufo_large.models.dense_values import read_tensors
from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.tensor_files import write_tensors
from ufo_large.runs.folder import CONFIG_REMEDY, RunFolder, SavedRun
from ufo_large.serving.model_card import CARD, card_of, preprocessing_of, with_license

WEIGHTS = "model.safetensors"
FILES = ("config.json", WEIGHTS, CARD)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Opened:
    """A model, what its folder says of it, and the file or folder that holds its `weights`."""

    model: MultitaskModel
    saved: SavedRun
    folder: Path
    weights: Path

    @property
    def identity(self) -> dict[str, str]:
        """Name the weights; size and time of their files tell them from later ones of that name."""
        files = [self.weights] if self.weights.is_file() else sorted(self.weights.rglob("*"))
        facts = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()
        return {"weights": str(self.weights.absolute()), "files": digest[:16]}


def find_folder(source: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a run or a saved model; one on the hub is fetched, or found in the hub's cache.

    Raises ValueError where there is neither.
    """
    if Path(source).is_dir():
        if revision is not None:
            raise ValueError(f"revision={revision!r}: {source} is a folder; only the hub has revisions")
        return Path(source)
    if not HUB_ID.fullmatch(str(source)):
        raise ValueError(f"{source}: no such folder; give a run's, a saved model's, or OWNER/NAME on the hub")
    try:
        found = snapshot_download(str(source), revision=revision, allow_patterns=[*FILES])
    except (OSError, ValueError) as error:  # the hub's own errors are OSErrors
        said = str(error).strip().splitlines()[0]
        raise ValueError(f"{source}: no folder here, and the hub gives no such model ({said})") from error
    return Path(found)


def open_model(folder: Path, device: torch.device, checkpoint: str | Path | None = None) -> Opened:
    """Open a saved model, or a run: its final weights, or a checkpoint (`last` for the newest whole one)."""
    run = RunFolder(folder)
    saved = run.read()
    if checkpoint is not None:
        chosen = find_checkpoint(run, checkpoint)
        return Opened(load_run(run, saved, device, chosen), saved, folder, chosen)
    if (folder / WEIGHTS).is_file():
        file = folder / WEIGHTS
        model = filled(saved.config.model, saved.tasks, read_tensors(file), file, device)
        return Opened(model, saved, folder, file)
    if not run.weights.exists():
        remedy = "it has saved no whole checkpoint yet; wait for one, or let it go on with --resume auto"
        if there := complete_checkpoints(run.checkpoints):
            remedy = "predict with its newest checkpoint, --checkpoint last "
            remedy += f"({there[-1].name}), from Python checkpoint='last'"
        raise ValueError(f"{folder}: this run has not finished; {remedy}")
    return Opened(load_run(run, saved, device), saved, folder, run.weights)


def require_ours(folder: Path) -> None:
    """Raise ValueError where files of other programs lie in a folder that a model would be saved to."""
    there = [name for name in FILES if (folder / name).exists()]
    try:
        if there:
            RunFolder(folder).read()
    except (OSError, ValueError):
        raise ValueError(
            f"{folder}: {there[0]} there is of no saved model and would be replaced; give an empty folder"
        ) from None


def write_pretrained(opened: Opened, folder: Path, license: str | None) -> None:
    """Write config.json, model.safetensors and README.md; a saved model keeps the card and licence it has."""
    saved, card = opened.saved, None
    if opened.weights.name == WEIGHTS:  # saved before
        stated = read_json(RunFolder(opened.folder).config_file, CONFIG_REMEDY).get("license", "unknown")
        license = stated if license is None else license
        if (opened.folder / CARD).is_file():  # it has the figures
            card = (opened.folder / CARD).read_text(encoding="utf-8")
            card = card if license == stated else with_license(card, license)
    license = license or "unknown"
    folder.mkdir(parents=True, exist_ok=True)
    config = replace(saved.config, pretrained=None)  # a path of this machine, and all weights are here
    run = RunFolder(folder)
    write_tensors(folder / WEIGHTS, opened.model.state_dict())
    run.write(config, saved.tasks, saved.fingerprint, "", None)
    body: dict[str, Any] = read_json(run.config_file, CONFIG_REMEDY)
    write_json(run.config_file, body | {"license": license, "preprocessing": preprocessing_of(saved)})
    if card is None:
        checkpoint = opened.weights.name if (opened.weights / COMPLETE).exists() else ""
        card = card_of(opened.model, saved, opened.folder, license, folder.name, checkpoint)
    write_text_whole(folder / CARD, card)
