"""One file per kind of task."""

from ufo_large.config import did_you_mean
from ufo_large.kinds.base import Column, Headline, Kind, Stored, StoredPicture
from ufo_large.kinds.cards import Card, PredictionExample
from ufo_large.kinds.classification import Classification
from ufo_large.kinds.depth import Depth
from ufo_large.kinds.detection import Detection
from ufo_large.kinds.segmentation import Segmentation
from ufo_large.structures import TaskInfo

KINDS: dict[str, Kind] = {k.name: k for k in (Classification(), Detection(), Segmentation(), Depth())}


def register_kind(kind: Kind) -> None:
    """Add a kind, as a plugin does. Raises ValueError where its name or headline is taken."""
    for known in KINDS.values():
        if type(known) is not type(kind) and (
            known.name == kind.name or known.headline.name == kind.headline.name
        ):
            told = f"kind {kind.name!r} with the headline {kind.headline.name!r}"
            raise ValueError(f"{told}: {known.name!r} with {known.headline.name!r} is there; rename yours")
    KINDS[kind.name] = kind


def kind_of(info: TaskInfo) -> Kind:
    """Return the kind of a task; ValueError lists the known ones."""
    if info.kind not in KINDS:
        raise ValueError(
            f"task {info.name!r}: unknown kind {info.kind!r}; if a plugin defines it, give --plugin MODULE."
            f"{did_you_mean(info.kind, KINDS)}"
        )
    return KINDS[info.kind]


def require_kind(info: TaskInfo) -> None:
    """Raise ValueError for a task of an unknown kind, named as another kind, or with unfit classes."""
    kind = kind_of(info)
    if info.name in KINDS and info.name != info.kind:
        told = "that is a kind of task, but not this one's"
        raise ValueError(f"task {info.name!r}: {told}; choose another, for instance with --data NAME=DIR")
    kind.check_info(info)


__all__ = [
    "KINDS",
    "Card",
    "Column",
    "Headline",
    "Kind",
    "PredictionExample",
    "Stored",
    "StoredPicture",
    "kind_of",
    "register_kind",
    "require_kind",
]
