"""What a kind of task is: everything that depends on what is to be predicted, except the network.

A kind knows what a truth is and how it lies on a user's disk and in a shard, how it moves with the picture,
how it is batched, what a prediction is and how it is counted, answered in a submission and drawn. The rest of
the package asks the kind and never its name. Heads (`tasks/`) predict for a kind; `HEADS` lists them by kind.

A new kind implements what is abstract here; the other methods have an answer that suits a kind without
classes, without tiles and without a place in the contest's submission.

Legend: H W height and width, K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ufo_large.kinds.cards import Card, PredictionExample
from ufo_large.kinds.plain_values import plain
from ufo_large.kinds.protocols import Protocol
from ufo_large.kinds.review import Review
from ufo_large.media.pictures import FileFacts, Look
from ufo_large.metrics import Metric
from ufo_large.structures import Example, RawSample, Reporter, SampleInfo, TaskInfo, Window


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """The figure that stands for a kind: a key of its metric.

    `title` heads a table's column, `label` names the figure in a page. Where less is better the figure enters
    the score as 1 / (1 + value), else as it is, a share of 1.
    """

    name: str
    title: str
    label: str
    higher_is_better: bool = True

    def share(self, value: float) -> float:
        """Return the figure as a share of 1 where more is better."""
        return value if self.higher_is_better else 1 / (1 + value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of a shard's index beside the labels: one row per label, of `shape`."""

    dtype: type
    shape: tuple[int, ...] = ()


@dataclass(slots=True)
class Stored:
    """A truth as it lies in a shard.

    `annotation`: JSON values beside the image's own. `target`: the bytes of the file beside it, if any.
    `labels` and `counts`: the rows of the index, a class and how often it is there (1, or pixels).
    `columns`: one value per label for each of the kind's `columns`.
    """

    annotation: dict[str, Any] = field(default_factory=dict)
    target: bytes = b""
    labels: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPicture:
    """The picture that a truth is stored for: `size` (height, width), and its `ratio` (y, x) to the user's.

    `size` None leaves the truth at its own.
    """

    size: tuple[int, int] | None
    ratio: tuple[float, float] = (1.0, 1.0)


class Kind(ABC):
    """One kind of task. Instances hold no state; `ufo_large.kinds.KINDS` has one of each by name.

    `class_metrics`: key -> title of the metrics that come per class as `<key>/<class>`. `input_size`:
    (height, width) of the row in `launchers/plan.py`. `target_suffix`: ending of the file beside an image in
    a shard. `has_tiles`: large images may be cut into tiles at test time; `whole_tile`: the whole image is
    one more. `fusions`: ways to join the predictions of several views of an image at test time, the usual one
    first; empty: there is none. `any_scale`: what is predicted does not depend on how large it is shown.
    `in_submission`: the contest's submission has a form for it. `form`: that form, for messages. `in_coco`:
    COCO's results have one.
    `contest`: name and number of classes of the contest's task, or of the usual one; None: nothing is usual.
    `counts_objects`: an image holds any number of labelled objects.
    `compares_classes`: a task of one class has nothing to tell apart, so that such data is misread. `empty`:
    what is wrong where the truth of a whole split leaves nothing to count, and the remedy.
    """

    name: ClassVar[str]
    headline: ClassVar[Headline]
    class_metrics: ClassVar[Mapping[str, str]] = {}
    columns: ClassVar[Mapping[str, Column]] = {}
    input_size: ClassVar[tuple[int, int]] = (224, 224)
    target_suffix: ClassVar[str] = ""
    has_tiles: ClassVar[bool] = False
    whole_tile: ClassVar[bool] = False
    fusions: ClassVar[tuple[str, ...]] = ()
    any_scale: ClassVar[bool] = True
    in_submission: ClassVar[bool] = False
    in_coco: ClassVar[bool] = False
    contest: ClassVar[tuple[str, int] | None] = None
    counts_objects: ClassVar[bool] = False
    compares_classes: ClassVar[bool] = False
    form: ClassVar[str] = ""
    empty: ClassVar[str] = "nothing in the ground truth can be counted; check it"

    def check_info(self, info: TaskInfo) -> None:  # noqa: B027
        """Raise ValueError for classes that a task of this kind cannot have."""

    def has_contest_classes(self, info: TaskInfo) -> bool:
        """Whether the protocols count the task differently, and its classes are the contest's."""
        return False

    # A user's files. `truth` is the annotation of an `Example`, in the user's pixels.

    def files(self, truth: Any) -> Iterable[tuple[Path, Look]]:
        """Return the files that the truth lies in, each with the function that looks into its bytes."""
        return ()

    def check_split(  # noqa: B027
        self,
        info: TaskInfo,
        examples: Sequence[Example],
        facts: Mapping[Path, FileFacts],
        report: Reporter,
    ) -> None:
        """Report what is wrong with a split as a whole, before its examples are looked at."""

    def checked(
        self, example: Example, facts: Mapping[Path, FileFacts], info: TaskInfo, report: Reporter
    ) -> Example | None:
        """Report what is wrong with a truth; return the example as it can be used, None where it cannot."""
        return example

    def classes_of(self, truth: Any, facts: Mapping[Path, FileFacts]) -> list[int]:
        """Return the labels that an image shows, once per object, for the count of classes."""
        return []

    def relabelled(self, truth: Any, new_labels: Sequence[int]) -> Any:
        """Return the truth with label i sent to `new_labels[i]`."""
        return truth

    def inputs(self, truth: Any, facts: Mapping[Path, FileFacts]) -> Any:
        """Return what decides how the truth is stored; its repr tells a changed truth."""
        return truth

    def to_json(self, truth: Any) -> Any:
        """Return the truth as JSON values, for the index that `check_data.py --fix` writes."""
        return truth

    def from_json(self, value: Any) -> Any:
        """Return what `to_json` was given."""
        return value

    def change(self, before: Any, after: Any) -> str:
        """Say in a few words what `checked` changed; empty where nothing."""
        return ""

    def mark(self, picture_HW3: np.ndarray, truth: Any, scale: float) -> None:  # noqa: B027
        """Draw the truth into a thumbnail of the user's picture, `scale` times as large."""

    # Shards.

    @abstractmethod
    def stored(self, truth: Any, picture: StoredPicture) -> Stored:
        """Return the truth as a shard holds it. Reads the files that the truth names."""

    @abstractmethod
    def truth(self, annotation: Mapping[str, Any], target: bytes | None) -> Any:
        """Return what predictions are counted against, from what `stored` made."""

    # Training.

    @abstractmethod
    def load(self, raw: RawSample, window: Window) -> dict[str, Tensor]:
        """Return the targets in a window of the image, in its output pixels.

        Boxes and masks as torchvision's tv_tensors, so that its v2 transforms move them with the picture.
        Raises BadSample where bytes cannot be read.
        """

    def random_targets(
        self, info: TaskInfo, images: int, size: tuple[int, int], generator: torch.Generator, objects: int
    ) -> Any:
        """Return targets of so many random images of (height, width), as `collate` does; None: not known.

        `objects`: in each image, where the kind counts them. For plans and tests, which have no data.
        """
        return None

    @abstractmethod
    def collate(
        self,
        targets: Sequence[Mapping[str, Tensor]],
        sizes: Sequence[tuple[int, int]],
        canvas: tuple[int, int],
    ) -> Any:
        """Return the batch's targets, a dataclass of tensors; image i fills `sizes[i]` of the canvas."""

    # Predictions: dataclasses with `sample`, a SampleInfo.

    def merged(self, source: SampleInfo, parts: Sequence[Any]) -> Any:
        """Return one prediction of `source` from those of its tiles (`TileSample`s)."""
        raise NotImplementedError(f"{self.name} has no tiles")

    def mirrored(self, prediction: Any) -> Any:
        """Return a prediction of an image from that of its mirror image, left for right."""
        raise NotImplementedError(f"{self.name} has no views")

    def fused(self, views: Sequence[Any], fusion: str) -> Any:
        """Return one prediction of an image from those of its views, by one of `fusions`.

        The batches that they come from had `keep_scores`.
        """
        raise NotImplementedError(f"{self.name} has no views")

    @abstractmethod
    def metric(self, info: TaskInfo, protocol: Protocol) -> Metric:
        """Return an empty metric; ValueError where the protocol does not suit the classes."""

    @abstractmethod
    def said(self, prediction: Any) -> Any:
        """Return what the metric counts of a prediction."""

    @abstractmethod
    def count(self, metric: Metric, image: int, said: Any, truth: Any) -> None:
        """Count one image, number `image` of its split's official order."""

    def confidence(self, prediction: Any) -> float | None:
        """Return how probable the model holds what it said as a whole, where that is one probability."""
        return None

    def review(self, info: TaskInfo) -> Review:
        """Return what is to see every image beside the metric, for the report's figures and worst images."""
        return Review(info)

    def baselines(self, train: Any) -> Mapping[str, Callable[[SampleInfo], Any]]:
        """Return what needs no training: name -> what it says of an image, as `said` returns it.

        `train`: the training split (`SplitReader`).
        """
        return {}

    # Predictions for a user, in pixels of the stored image, with the user's class names and ids.

    def described(self, prediction: Any, info: TaskInfo) -> dict[str, Any]:
        """Return a prediction as JSON values."""
        return {"said": plain(self.said(prediction))}

    def encoded(self, prediction: Any, info: TaskInfo) -> bytes:
        """Return a file, of the ending `target_suffix`, with what JSON is too small for; empty: none."""
        return b""

    def coco_results(self, prediction: Any, info: TaskInfo) -> list[dict[str, Any]]:
        """Return a prediction's entries in COCO's results format."""
        raise NotImplementedError(f"{self.name} has no form in COCO's results")

    # The contest's submission.

    def answer_name(self, file_name: str) -> str:
        """Return the name under which a submission answers for an image."""
        return file_name

    def entries(self, prediction: Any, info: TaskInfo) -> list[dict[str, Any]]:
        """Return a prediction's entries in the submission."""
        raise NotImplementedError(f"{self.name} has no form in the submission")

    def answers(
        self, raw: Any, info: TaskInfo, file_names: Sequence[str], report: Callable[[str], None]
    ) -> list[Any]:
        """Read a task's entries, one answer per image; what is wrong is reported."""
        raise NotImplementedError(f"{self.name} has no form in the submission")

    def answered(self, answer: Any, info: TaskInfo, truth: Any, protocol: Protocol) -> Any:
        """Return what the metric counts of an answer."""
        raise NotImplementedError(f"{self.name} has no form in the submission")

    # Pictures.

    @abstractmethod
    def draw(self, examples: Sequence[PredictionExample]) -> Iterator[tuple[Card, np.ndarray]]:
        """Yield the words and the drawn picture, RGB uint8 [H, W, 3], of each example of one task."""

    def overlay(self, example: PredictionExample) -> dict[str, Any]:
        """Return the arguments `boxes` or `masks` of a `wandb.Image` of the plain picture; empty: none."""
        return {}
