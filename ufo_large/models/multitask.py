"""The whole model: one routed trunk, one head a task, a feature pyramid where the head wants one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from ufo_large.config import choice_of_entries, did_you_mean
from ufo_large.models.pyramid import SimplePyramid
from ufo_large.models.sharing import computed_once
from ufo_large.models.trunk import Trunk
from ufo_large.structures import Prediction, Role, TaskBatch, TaskInfo, set_role
from ufo_large.tasks import ALL_HEADS, TaskHead
from ufo_large.tasks.conv_products import use_products

Mode = Literal["losses", "predictions"]


class MultitaskModel(nn.Module):
    """Runs one task a call: trunk, that task's pyramid and head.

    Everything goes through `forward`, so that one wrapper (DeepSpeed's engine) around the model sees it.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """`heads`: by task name, or by kind (`detection`) for all tasks of that kind; a name comes first.

        `pyramid_width`: channels of the maps that dense heads read.
        """

        trunk: Trunk.Config = field(default_factory=Trunk.Config)
        heads: Mapping[str, TaskHead.Config] = choice_of_entries(ALL_HEADS)
        pyramid_width: int = 256

        def build(self, tasks: tuple[TaskInfo, ...]) -> "MultitaskModel":
            """Return the model for the tasks of a data set; runs under `deepspeed.zero.Init` as well."""
            return MultitaskModel(self, tasks)

        def head_of(self, info: TaskInfo) -> TaskHead.Config:
            """Return the head's config for a task; ValueError where the recipe names none."""
            if (head := info.choose(self.heads)) is not None:
                return head
            raise ValueError(
                f"task {info.name!r} of kind {info.kind!r} has no head; add one under its name or kind to "
                f"model.heads, which has {sorted(self.heads) or 'none'}"
            )

    def __init__(self, config: Config, tasks: tuple[TaskInfo, ...]):
        super().__init__()
        names = tuple(t.name for t in tasks)
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a model needs distinct task names, got {names}")
        self.config = config
        self.tasks: dict[str, TaskInfo] = {}
        self.trunk = config.trunk.build(names)
        self.heads = nn.ModuleDict()
        self.pyramids = nn.ModuleDict()
        for info in tasks:
            self.attach_head(info)

    def units(self) -> list[nn.Module]:
        """Return modules that sharding should gather whole: see `Trunk.units`, and the pyramids."""
        return [*self.trunk.units(), *self.pyramids.values()]

    def attach_head(self, info: TaskInfo) -> None:
        """Make the head of a task and, where it reads one, its pyramid."""
        self._attach(info, *build_head(self.config, info, self.trunk.width, self.trunk.stride))

    def _attach(self, info: TaskInfo, head: TaskHead, pyramid: SimplePyramid | None) -> None:
        if head.query_blocks:
            self.trunk.allow_queries(head.query_blocks)
        self.heads[info.name] = head
        if pyramid is not None:
            self.pyramids[info.name] = pyramid
        self.tasks[info.name] = info

    def add_task(self, info: TaskInfo) -> None:
        """Add a task to a trained model whose parameters are whole, not sharded.

        Its experts start from what is there, its head anew, on the model's device, in its dtype and mode. The
        other tasks' outputs stay bitwise equal. A refused task leaves the model as it was.
        """
        head, pyramid = build_head(self.config, info, self.trunk.width, self.trunk.stride)
        like = next(self.trunk.parameters())
        self.trunk.add_task(info.name)
        self._attach(info, head, pyramid)
        for name, module in self.named_modules():
            if info.name in name.split("."):
                module.to(like.device)
        for name, parameter in self.named_parameters():
            if info.name in name.split("."):
                parameter.data = parameter.data.to(like)
        self.train(self.training)

    def forward(self, batch: TaskBatch, mode: Mode = "losses") -> dict[str, Tensor] | list[Prediction]:
        """Return the task's named scalar losses, or one prediction an image.

        Auxiliary losses of the routing come along as `routing_<name>`.
        """
        if mode not in ("losses", "predictions"):
            raise ValueError(f"mode={mode!r}.{did_you_mean(mode, ('losses', 'predictions'))}")
        outputs = self.outputs(batch)
        self.trunk.require(batch.task)
        head: Any = self.heads[batch.task]
        if mode == "predictions":
            return head.predict(outputs, batch)
        routing = {f"routing_{name}": loss for name, loss in self.trunk.route.losses.items()}
        return {**head.losses(outputs, batch), **routing}

    def not_finite(self) -> dict[str, list[str]]:
        """Return, by task, what its head saw that was not finite; waits for the device."""
        found = {task: head.watch.not_finite() for task, head in self.heads.items()}
        return {task: names for task, names in found.items() if names}

    def forget_not_finite(self) -> None:
        """Begin anew with what is noted, behind a step that was skipped for it."""
        for head in self.heads.values():
            head.watch.forget()

    def outputs(self, batch: TaskBatch) -> dict[str, Any]:
        """Return the raw outputs of the batch's head."""
        self.trunk.require(batch.task)
        head: Any = self.heads[batch.task]
        features = self.trunk(batch.images_BCHW, batch.sizes_B2, batch.task, head.trunk_queries())
        if batch.task in self.pyramids:
            pyramid = self.pyramids[batch.task]
            levels = dict(zip(pyramid.strides, pyramid(features.map_BDHW), strict=True))
            features = features._replace(pyramid=levels)
        return head(features)

    def predict(self, batch: TaskBatch) -> list[Prediction]:
        """Return one prediction an image, in that image's own pixels."""
        return self(batch, mode="predictions")

    @property
    def shared_blocks(self) -> int:
        """How many first blocks of the trunk all tasks share: no expert bank, and no head's queries."""
        queried = max((head.query_blocks for head in self.heads.values()), default=0)
        return min(self.trunk.shared_blocks, self.trunk.depth - queried)

    def predict_together(self, batches: Sequence[TaskBatch]) -> list[list[Prediction]]:
        """Return what `predict` returns of each batch, bit for bit; the shared blocks run once.

        The batches are of several tasks and hold the very same tensor of images. Call it without gradients.
        """
        for batch in batches:
            if batch.images_BCHW is not batches[0].images_BCHW:
                raise ValueError(f"task {batch.task!r}: predict_together needs one tensor of images for all")
        with computed_once(self.trunk.vit.blocks, self.shared_blocks):
            return [self.predict(batch) for batch in batches]


def build_head(
    config: MultitaskModel.Config, info: TaskInfo, width: int, patch: int
) -> tuple[TaskHead, SimplePyramid | None]:
    """Return a task's head and its pyramid (None where the head reads none), with the task's role."""
    role = Role("head", info.name)
    head = use_products(set_role(config.head_of(info).build(info, width, config.pyramid_width), role))
    if not head.strides:
        return head, None
    pyramid = SimplePyramid(width, config.pyramid_width, patch, tuple(head.strides))
    return head, use_products(set_role(pyramid, role))
