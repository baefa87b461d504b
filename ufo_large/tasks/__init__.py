"""One file per head of a kind of task."""

from collections.abc import Iterator, Mapping

from ufo_large.config import register
from ufo_large.tasks.base import TaskHead
from ufo_large.tasks.classification_arcface import ArcFaceClassifier
from ufo_large.tasks.classification_grid import GridClassifier
from ufo_large.tasks.classification_linear import LinearClassifier
from ufo_large.tasks.depth_dense import DenseDepth
from ufo_large.tasks.depth_dpt import DPTDepth
from ufo_large.tasks.detection_detr import DETRDetector
from ufo_large.tasks.detection_fcos import FCOSDetector
from ufo_large.tasks.detection_rf_detr import RFDETRDetector
from ufo_large.tasks.segmentation_dense import DenseSegmenter
from ufo_large.tasks.segmentation_eomt import EoMTSegmenter
from ufo_large.tasks.segmentation_mask2former import Mask2FormerSegmenter

HEADS: dict[str, dict[str, type[TaskHead]]] = {
    "classification": {"linear": LinearClassifier, "grid": GridClassifier, "arcface": ArcFaceClassifier},
    "detection": {"fcos": FCOSDetector, "detr": DETRDetector, "rf_detr": RFDETRDetector},
    "segmentation": {"dense": DenseSegmenter, "mask2former": Mask2FormerSegmenter, "eomt": EoMTSegmenter},
    "depth": {"dense_depth": DenseDepth, "dpt": DPTDepth},
}


class _AllHeads(Mapping):
    """The heads of every kind by name, as `HEADS` has them when it is asked."""

    def __getitem__(self, name: str) -> type[TaskHead]:
        for heads in HEADS.values():
            if name in heads:
                return heads[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for heads in HEADS.values() for name in heads)

    def __len__(self) -> int:
        return sum(map(len, HEADS.values()))


ALL_HEADS = _AllHeads()


def head_class(config: TaskHead.Config) -> type[TaskHead]:
    """Return the head that has this config."""
    return next(head for head in ALL_HEADS.values() if head.Config is type(config))


def register_head(name: str, head: type[TaskHead]) -> None:
    """Add a head for its kind, as a plugin does. Raises ValueError where another head has the name."""
    if name in ALL_HEADS and name not in HEADS.get(head.kind, {}):
        raise ValueError(f"{name!r} is {ALL_HEADS[name].__qualname__} already; choose another name")
    register(HEADS.setdefault(head.kind, {}), name, head)


__all__ = ["ALL_HEADS", "HEADS", "TaskHead", "head_class", "register_head"]
