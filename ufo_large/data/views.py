"""Show the network several views of each image at test time, and join what it says of them.

A mirrored view and views at other sizes err differently than the plain one, so their mean errs less; a larger
view also shows small objects and fine grain with more pixels. Each view costs a forward pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ufo_large.config import did_you_mean
from ufo_large.kinds import kind_of
from ufo_large.structures import Prediction, TaskBatch, TaskInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """Which views are predicted at test time.

    `scales`: sizes of the views, as factors on the loader's `image_size`, rounded to whole patches. `flip`
    adds the mirror image of each. `fusion`: how the task's kind joins its predictions (None: its usual way).
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    fusion: str | None = None

    def __post_init__(self):
        if not self.scales or min(self.scales) <= 0 or len(set(self.scales)) != len(self.scales):
            raise ValueError(f"views: scales {self.scales} must be different numbers above 0")

    @property
    def count(self) -> int:
        """How many views an image has."""
        return len(self.scales) * (2 if self.flip else 1)

    def for_task(self, info: TaskInfo) -> "Views":
        """Return the views of a task, `fusion` named where there are several.

        ValueError where its kind cannot have them.
        """
        kind, where = kind_of(info), f"task {info.name!r}: loader.views"
        if self.scales != (1.0,) and not kind.any_scale:
            raise ValueError(f"{where}.scales={self.scales}: in {kind.name} the size shown matters; give 1")
        if self.count == 1:
            if self.fusion is not None:
                raise ValueError(f"{where}.fusion={self.fusion!r} has nothing to join; set flip or scales")
            return self
        if not kind.fusions:
            raise ValueError(
                f"{where}: {self.count} views of an image, but {kind.name} says no way to join their "
                "predictions; leave flip and scales, or give the kind `fusions`, `mirrored` and `fused`"
            )
        if self.fusion not in (None, *kind.fusions):
            raise ValueError(f"{where}.fusion={self.fusion!r}.{did_you_mean(self.fusion, kind.fusions)}")
        return replace(self, fusion=self.fusion or kind.fusions[0])

    def canvases(self, image_size: tuple[int, int], patch: int) -> list[tuple[int, int]]:
        """Return the (height, width) of the input at each scale; at scale 1 it is `image_size` itself."""
        height, width = image_size
        return [(_scaled(height, scale, patch), _scaled(width, scale, patch)) for scale in self.scales]

    def predicted(
        self,
        info: TaskInfo,
        batches: Sequence[TaskBatch],
        predict: Callable[[TaskBatch], list[Prediction]],
    ) -> list[Prediction]:
        """Return one prediction per image from all of its views; call it on what `for_task` returned.

        `batches` hold the same images, one batch per scale.
        """
        if self.count == 1:
            return predict(batches[0])
        kind, found = kind_of(info), []
        for batch in (replace(batch, keep_scores=True) for batch in batches):
            found.append(predict(batch))
            if self.flip:
                found.append([kind.mirrored(prediction) for prediction in predict(mirrored(batch))])
        return [kind.fused(of_image, self.fusion) for of_image in zip(*found, strict=True)]


PLAIN = Views()
"""Each image once, as it is."""


def _scaled(side: int, scale: float, patch: int) -> int:
    return side if scale == 1 else max(patch, round(side * scale / patch) * patch)


def mirrored(batch: TaskBatch) -> TaskBatch:
    """Return the images' mirror images, left for right, without targets; the padding stays at the right."""
    images_BCHW = batch.images_BCHW.clone()
    for image_CHW, (_, width) in zip(images_BCHW, batch.sizes_B2.tolist(), strict=True):
        image_CHW[..., :width] = image_CHW[..., :width].flip(-1)
    return replace(batch, images_BCHW=images_BCHW, targets=None)
