"""How far and in which direction finished runs have changed the trunk that they started from.

The change of weights by a task is its "task vector" (Ilharco et al., arXiv:2212.04089); those of different
tasks were found nearly orthogonal there, for models trained apart.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ufo_large.distributed.checkpoint import load_weights
from ufo_large.models.weights import dense_names, initial_state
from ufo_large.runs.folder import RunFolder
from ufo_large.train.pretrained import weights_file
from ufo_large.train.run import trained_for

Place = str
"""A part of a block under timm's name, as `blocks.7.mlp`."""
Row = tuple[str, str]
"""A run, and whose weights these are: an expert's name, or SHARED."""
SHARED = ""


@dataclass(frozen=True, slots=True)
class Changes:
    """What `rows`, runs or experts of them, have changed in `places`.

    lengths_NP: length of each row's change per place, as a share of the start's. cosines_NN: of the changes
    in all places together. Both of weight matrices; of vectors (norms, scales) where a place has no matrix.
    """

    rows: tuple[str, ...]
    places: tuple[Place, ...]
    lengths_NP: np.ndarray
    cosines_NN: np.ndarray


@dataclass(frozen=True, slots=True)
class _Moved:
    """Changes of one owner's parameters in one place, as one vector, and the length of their start."""

    change: Tensor
    start: float


def compare_changes(runs: Sequence[Path]) -> Changes:
    """Compare finished runs of one trunk. ValueError for a folder that holds none, or for other trunks."""
    moved: dict[Row, dict[Place, _Moved]] = {}
    for run, name in zip(runs, _names(runs), strict=True):
        moved |= _rows(run, name)
    places = _compared(moved)
    rows = [row for row in moved if places <= moved[row].keys()]
    ordered = sorted(places, key=lambda place: (int(place.split(".")[1]), place))
    vectors = {row: [moved[row][place] for place in ordered] for row in rows}
    sizes = {row: [len(m.change) for m in found] for row, found in vectors.items()}
    if other := next((row for row in rows if sizes[row] != sizes[rows[0]]), None):
        counts = f"{sum(sizes[other])} weights in {', '.join(ordered)}, {sum(sizes[rows[0]])} there"
        raise ValueError(f"{other[0]} has another trunk than {rows[0][0]}: {counts}; give runs of one trunk")
    lengths_NP = np.array([[float(m.change.norm()) / m.start for m in vectors[row]] for row in rows])
    joined = [torch.cat([m.change for m in vectors[row]]) for row in rows]
    unit_NK = torch.stack([vector / vector.norm() for vector in joined])
    return Changes(
        tuple(" ".join(row).strip() for row in rows),
        tuple(ordered),
        lengths_NP,
        (unit_NK @ unit_NK.T).numpy(),
    )


def _names(runs: Sequence[Path]) -> list[str]:
    """Return short names: the folders from where they differ."""
    parts = [path.absolute().parts for path in runs]
    if len(set(parts)) < len(parts):
        raise ValueError(f"{', '.join(map(str, runs))}: a run is given twice; leave one out")
    same = 0
    while len(runs) > 1 and len({path[: same + 1] for path in parts}) == 1:
        same += 1
    return ["/".join(path[same:] if len(runs) > 1 else path[-1:]) for path in parts]


def _rows(run: Path, name: str) -> dict[Row, dict[Place, _Moved]]:
    """Return the run's changes by row and place; places in which nothing has changed are left out."""
    found: dict[tuple[str, Place], list[tuple[str, Tensor, Tensor]]] = defaultdict(list)
    for owner, dense, start, end in _parameters(RunFolder(run)):
        found[owner, ".".join(dense.split(".")[:3])].append((dense, start, end))
    rows: dict[Row, dict[Place, _Moved]] = defaultdict(dict)
    for (owner, place), tensors in found.items():
        matrices = [t for t in tensors if t[1].ndim > 1]  # biases are long in some ViTs and hardly move
        tensors = sorted(matrices or tensors, key=lambda t: t[0])
        start, end = (torch.cat([t[i].flatten().float() for t in tensors]) for i in (1, 2))
        if not torch.equal(start, end):
            rows[name, owner][place] = _Moved(end - start, float(start.norm()))
    if not rows:
        raise ValueError(f"{run}: no block of the trunk has changed (frozen, or LoRA); nothing to compare")
    return rows


def _parameters(folder: RunFolder) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """Yield (owner, timm's name, value at the start, value at the end) of the blocks' parameters."""
    saved, ends = folder.read(), {}
    load_weights(folder.weights, ends.__setitem__)
    config = saved.config
    with torch.device("meta"):
        model = config.model.build(saved.tasks)
    source = {f"trunk.{name}": dense for name, dense in dense_names(model.trunk).items()}
    for name, start in initial_state(model, config.seed, weights_file(config), trained_for(config)):
        dense = source.get(name)
        if dense is None or not dense.startswith("blocks."):
            continue
        if name not in ends:
            raise ValueError(f"{folder.weights}: {name} is missing; it belongs to another config.json")
        part = name.removeprefix("trunk.vit.").split(".")[3:]
        yield part[1] if part[:1] == ["experts"] else SHARED, dense, start, ends[name]


def _compared(moved: Mapping[Row, Mapping[Place, _Moved]]) -> set[Place]:
    """Return the places that experts have, where there are any, else those of all rows."""
    experts = [set(places) for (_, owner), places in moved.items() if owner != SHARED]
    wanted = set.intersection(*experts) if experts else set.intersection(*map(set, moved.values()))
    if not wanted:
        raise ValueError("the runs have changed no place in common; give runs that route the same blocks")
    return wanted
