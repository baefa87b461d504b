"""Where the values of a dense timm ViT come from: a file, or timm's own random initialisation."""

import math
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from timm.models.eva import Eva
from torch import Tensor

from ufo_large.config import Problems, read_json, require_inside
from ufo_large.models.fitting import CANNOT_CONVERT, bare, check_shape, convert, what_fits
from ufo_large.models.positions import move_to_grid, resampled, stored_grid
from ufo_large.models.transformers_names import Joined, check_card, is_from_transformers
from ufo_large.models.trunk import Trunk
from ufo_large.models.weight_cards import CARD, folder_of

_CLASSIFIER = ("head.", "head_dist.", "lm_head.", "mask_token")
INDEX = ".index.json"
_OLD = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)


class RandomValues:
    """timm's initial values, drawn one block at a time: at most one block and the embeddings are held.

    Each block is taken from a model of one block with its own seed. Calls should come block by block.
    """

    def __init__(self, config: Trunk.Config, seed: int):
        self.config, self.seed = config, seed
        with torch.device("meta"):
            vit = config.build_vit()
        self.rescaled = isinstance(vit, Eva) or vit.fix_init
        self._shapes = {n: p.shape for n, p in vit.named_parameters()}
        self._stem, self._index, self._block = self._draw(0), -1, {}
        if any(self._shapes[n] != v.shape for n, v in self._stem.items()):  # rotary frequencies a block
            self._stem = self._draw(0, depth=None)

    def __call__(self, name: str) -> Tensor:
        if not name.startswith("blocks."):
            return self._stem[name]
        _, index, inner = name.split(".", 2)
        if int(index) != self._index:
            self._index, self._block = int(index), self._draw(int(index) + 1)
        value = self._block[f"blocks.0.{inner}"]
        if self.rescaled and inner in ("attn.proj.weight", "mlp.fc2.weight"):
            value = value / math.sqrt(int(index) + 1)  # timm divides by sqrt(2 (index + 1)); index 0 is done
        return value

    def _draw(self, stream: int, depth: int | None = 1) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 100_003 + stream)
            vit = self.config.build_vit(**({} if depth is None else {"depth": depth}))
        return {n: p.detach() for n, p in vit.named_parameters() if stream or not n.startswith("blocks.")}


class PretrainedValues:
    """Values from a file on disk: timm's names, transformers' or a layout that timm's own loader converts.

    `path`: a .safetensors file, a torch file (.pt, .pth, .bin), a folder as Hugging Face lays it out, or the
    index of a file in parts. Tensors are mapped into memory and read when asked for. Position embeddings are
    resampled to the model's grid, patch embeddings to its patch size where `patch_size` names one, a
    classifier is left out. Raises ValueError for a ViT of another shape, saying what the file would fit, else
    listing every name that is missing, unknown or of another shape.
    """

    def __init__(self, config: Trunk.Config, path: str | Path):
        with torch.device("meta"):
            vit = config.build_vit()
        tensors = bare(read_tensors(Path(path)))
        if is_from_transformers(tensors):
            check_card(folder_of(Path(path)) / CARD, vit)
        wanted = dict(vit.named_parameters())
        subject = f"{path} does not hold the weights of {config.name}"
        check_shape(tensors, wanted, subject, may_resample=config.patch_size is not None)
        own_grid = vit.patch_embed.grid_size
        if grid := stored_grid(tensors, vit.num_prefix_tokens):
            move_to_grid(vit, (grid, grid), antialias=True)  # so that timm leaves the file's positions alone
        try:
            converted = convert(tensors, config.name, vit)
        except CANNOT_CONVERT as error:
            raise ValueError(f"{subject}: timm cannot convert it ({error}); {what_fits(tensors)}") from error
        self._values = {n: v for n, v in converted.items() if not n.startswith(_CLASSIFIER)}
        if grid and "pos_embed" in self._values:
            positions_1LD = self._values["pos_embed"]
            self._values["pos_embed"] = resampled(vit, positions_1LD, own_grid, config.is_antialiased)
        _check_names(self._values, wanted, subject, tensors)

    def __call__(self, name: str) -> Tensor:
        value = self._values[name]
        return value.tensor() if isinstance(value, Joined) else value


def _check_names(
    values: dict[str, Tensor | Joined], wanted: dict[str, Tensor], subject: str, tensors: Mapping[str, Any]
) -> None:
    problems = Problems(subject)
    for name in sorted(wanted.keys() | values.keys()):
        if name not in values:
            problems.add(f"{name}: missing")
        elif name not in wanted:
            problems.add(f"{name}: not a parameter of the model")
        elif values[name].shape != wanted[name].shape:
            shapes = f"{list(values[name].shape)}, but the model's is {list(wanted[name].shape)}"
            problems.add(f"{name}: shape {shapes}; set the trunk's shape to the file's")
    if problems.messages:
        problems.subject = f"{subject} ({what_fits(tensors)})"
    problems.raise_if_any(show=1000)


def keep_stored_grid(config: Trunk.Config, path: str | Path) -> Trunk.Config:
    """Return `config` with positions on the grid that the file stores them for, where it names no `img_size`.

    Inputs of any size are resampled from there, as the weights' authors do it; positions resampled twice
    would be others.
    """
    with torch.device("meta"):
        vit = config.build_vit()
    grid = stored_grid(bare(read_tensors(Path(path))), vit.num_prefix_tokens)
    if config.img_size is not None or vit.pos_embed is None or grid in (None, vit.patch_embed.grid_size[0]):
        return config
    return replace(config, img_size=grid * vit.patch_embed.feat_ratio())


def parts_of(index: Path) -> list[str]:
    """Return the files that an index of weights in parts names; ValueError where one is not beside it."""
    match read_json(index, "copy it again"):
        case {"weight_map": dict(places)}:
            names = set(places.values()) if all(isinstance(name, str) for name in places.values()) else ()
            for name in names:
                require_inside(index.parent, name, index)
            if names:
                return sorted(names)
    raise ValueError(f"{index}: its weight_map names no files; copy it again")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a file or folder, mapped into memory. ValueError names what cannot be read."""
    if path.is_dir():
        files = sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
        if not files:
            raise ValueError(f"{path}: no .safetensors or .bin file in this folder")
        return {name: tensor for file in files for name, tensor in read_tensors(file).items()}
    if path.name.endswith(INDEX) and path.is_file():
        files = [path.parent / part for part in parts_of(path)]
        return {name: tensor for file in files for name, tensor in read_tensors(file).items()}
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a .safetensors, .pt, .pth or .bin file, or a folder")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        held = torch.load(path, map_location="cpu", mmap=not _is_old(path), weights_only=True)
    except (SafetensorError, RuntimeError, EOFError) as error:
        remedy = "save its state_dict()" if "TorchScript" in str(error) else "copy it again"
        raise ValueError(f"{path}: cannot be read as weights ({error}); {remedy}") from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: holds other objects than tensors, which are not loaded; save model.state_dict()"
        ) from error
    if not isinstance(held, dict):
        raise ValueError(f"{path}: holds a {type(held).__name__}, no names; save model.state_dict()")
    return held


def _is_old(path: Path) -> bool:
    """Whether torch wrote the file as it did before 1.6, which it cannot map into memory."""
    with path.open("rb") as file:
        return file.read(len(_OLD)) == _OLD
