"""Write with torch.save, and read, without running anything that the file names.

A pickle may call any function of this machine. torch's restricted reader makes tensors and plain values
alone, and objects of the few classes that zero.py declares harmless because DeepSpeed writes them.
"""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ufo_large.distributed.checksums import Stamp, StampedFile

Write = Callable[[Any, Path], None]
"""Writes a value to a file, now or later; the value may change after the call."""


def write_plain(value: Any, file: Path) -> Stamp:
    """Write tensors and plain values; return what the file holds, which is then on the disk.

    Raises OSError, and TypeError where `read_plain` would refuse what was written.
    """
    with file.open("wb") as opened:
        stamped = StampedFile(opened)
        try:
            torch.save(value, stamped)
        except RuntimeError as error:
            raise (stamped.error or error) from None
        opened.flush()
        os.fsync(opened.fileno())
    if foreign := torch.serialization.get_unsafe_globals_in_checkpoint(file):
        raise TypeError(
            f"{file}: the state holds {', '.join(foreign)}, which no resume would read; let state_dict() "
            "return tensors, numbers, text, lists, tuples and dicts alone"
        )
    return stamped.stamp


def read_plain(file: str | Path, map_location: Any = "cpu", mmap: bool = False) -> Any:
    """Return what `file` holds. Raises pickle.UnpicklingError that names whatever else is in it.

    `mmap`: leave tensors on the disk until they are used.
    """
    try:
        return torch.load(file, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:  # torch's own words advise to switch the restriction off
        named = re.search(r"GLOBAL (\S+)", str(error))
        told = (
            f"holds {named[1]}, and only tensors and plain values are read, for anything else could run a "
            "program: the file is not of this version of the library, or somebody changed it"
            if named
            else "damaged"
        )
        raise pickle.UnpicklingError(f"{file}: {told}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:  # of a damaged pickle
        raise pickle.UnpicklingError(f"{file}: damaged ({type(error).__name__}: {error})") from error
