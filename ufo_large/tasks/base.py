"""A task's head: from trunk features to named losses and to predictions in the user's own terms.

Legend: B images, Q queries, D trunk width, P pyramid width.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ufo_large.structures import Features, Prediction, Queries, TaskBatch, TaskInfo
from ufo_large.tasks.finite import FiniteWatch


class TaskHead(nn.Module, ABC):
    """Head + targets + losses + post-processing of one task.

    A head never sees other tasks. `strides` names the pyramid levels it wants (in input pixels, finest
    first); empty for a head that reads only `pooled_BD` or `map_BDHW`. `query_blocks`: how many of the
    trunk's last blocks its `trunk_queries` pass through beside the patches. Parameters are used inside
    `forward` and `trunk_queries` only, because under ZeRO-3 they are whole only there; whoever builds the
    model gives them their role.
    """

    kind: ClassVar[str]
    strides: tuple[int, ...] = ()
    query_blocks: int = 0

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Options of the head. Sizes and classes come from the data and the trunk, through `build`."""

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "TaskHead":
            raise NotImplementedError

    def __init__(self, info: TaskInfo):
        super().__init__()
        if info.kind != self.kind:
            raise ValueError(
                f"task {info.name!r}: {type(self).__name__} is a head for {self.kind}, this task is "
                f"{info.kind}; choose another as model.heads.{info.name}"
            )
        self.info = info
        self.watch = FiniteWatch()

    def trunk_queries(self) -> Queries | None:
        """Return its own tokens for the trunk's last `query_blocks` blocks; None for a head without."""
        return None

    @abstractmethod
    def forward(self, features: Features) -> dict[str, Any]:
        """Return raw outputs (tensors or lists of tensors by name)."""

    @abstractmethod
    def losses(self, outputs: dict[str, Any], batch: TaskBatch) -> dict[str, Tensor]:
        """Return named scalar losses, already weighted; their sum is the task's loss.

        Names are short (`cross_entropy`, `boxes`); the trainer prefixes the task. Empty targets give
        finite losses that still reach every parameter of the head. Numbers that are not finite make the
        losses NaN by way of `watch`, because raising on one rank would leave the others waiting.
        """

    @abstractmethod
    def predict(self, outputs: dict[str, Any], batch: TaskBatch) -> list[Prediction]:
        """Return one prediction an image, in that image's own pixels (`batch.samples[i].height, .width`).

        The network saw the image scaled to `batch.sizes_B2[i]` and padded at the bottom and right.
        """

    def graph_outputs(self, outputs: dict[str, Any], batch: TaskBatch) -> dict[str, Tensor]:
        """Return what an exported graph answers: named tensors, a row per image, in pixels of the input.

        Their shapes depend on the input's alone, not on what is found, so that any number of images fits. A
        head that does not define it cannot become ONNX.
        """
        raise NotImplementedError(f"{type(self).__name__} has no graph_outputs")
