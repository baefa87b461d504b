"""Tensors to a file that appears whole, with the rights that any new file has."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from ufo_large.config import give_usual_rights, write_whole


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors, which of itself would leave the file to its owner alone."""
    with write_whole(file) as unfinished:
        save_file({name: t.contiguous() for name, t in tensors.items()}, unfinished, {"format": "pt"})
        give_usual_rights(unfinished)
