"""Run the model over a split, on one rank or several, and gather what is wanted of its predictions."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch

from ufo_large.data.evaluation_batches import evaluation_batches
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.progress import progress_bar
from ufo_large.data.shards import ShardSet
from ufo_large.data.tiles import Tiling, merge_tiles
from ufo_large.distributed import comm
from ufo_large.evaluation.ground_truth import GroundTruth, truth_of_shards
from ufo_large.evaluation.score import HEADLINE, summary
from ufo_large.evaluation.submission import entries_of
from ufo_large.metrics import Accuracy, FoundBoxes, MeanAveragePrecision, MeanIoU, Metric
from ufo_large.structures import Prediction, SampleInfo, TaskBatch, TaskInfo

Kept = TypeVar("Kept")


class Predictor(Protocol):
    """What is asked of a model: MultitaskModel and anything that answers like it."""

    training: bool

    def predict(self, batch: TaskBatch) -> list[Prediction]: ...

    def train(self, mode: bool = True) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluator:
    """Predicts one split of a data set; made once, used as often as wanted.

    `loaders` gives each task (by name, else by kind) its input size, micro-batch and tiles. `only` names the
    tasks that the model knows, where it does not know all. Every rank of the
    process group must call each method: they predict different images, and take the same number of forward
    passes because ZeRO-3 gathers parameters in them. Batches do not depend on the number of ranks, so neither
    do the figures.
    """

    shards: ShardSet
    loaders: Mapping[str, LoaderConfig]
    split: str = "test"
    only: tuple[str, ...] | None = None
    device: torch.device | str = "cpu"
    show_progress: bool = True

    @property
    def tasks(self) -> list[TaskInfo]:
        """The tasks that have this split, of those that the model knows."""
        known = [t for t in self.shards.tasks if self.only is None or t.name in self.only]
        return [info for info in known if self.shards.has_split(info.name, self.split)]

    def predictions(self, model: Predictor, info: TaskInfo) -> Iterator[Prediction]:
        """Yield this rank's predictions of one task, on the CPU. The model is in evaluation mode then."""
        loader = self.loaders.get(info.name) or self.loaders[info.kind]
        tiles = loader.tiles.for_task(info)
        found = self._raw_predictions(model, info, loader, tiles)
        yield from found if tiles is None else merge_tiles(found)

    def submission_entries(self, model: Predictor) -> dict[str, list[dict[str, Any]]]:
        """Return the submission's entries of all tasks in official order, on every rank."""
        return {info.name: self._entries(model, info) for info in self.tasks}

    def validate(self, model: Predictor) -> dict[str, float]:
        """Return `<task>/<metric>` and `score` by the protocol `standard`, on every rank.

        Straight from the predictions, without the detour over a submission; what a trainer calls. What the
        split cannot tell, such as mAP50 of images without a box, is left out.
        """
        values: dict[str, float] = {}
        headlines: dict[str, list[float]] = {name: [] for name in HEADLINE.values()}
        known = {info.name for info in self.tasks}
        for name, truth in truth_of_shards(self.shards, self.split).items():
            if name not in known:
                continue
            found = self._metric(model, truth).compute()
            values |= {f"{name}/{key}": value for key, value in found.items() if not math.isnan(value)}
            headline = found[HEADLINE[truth.info.kind]]
            headlines[HEADLINE[truth.info.kind]] += [] if math.isnan(headline) else [headline]
        score = summary(headlines, "standard")["score"]
        return values if score is None else values | {"score": score}

    def _raw_predictions(
        self, model: Predictor, info: TaskInfo, loader: LoaderConfig, tiles: Tiling | None
    ) -> Iterator[Prediction]:
        reader = self.shards.split(info.name, self.split)
        batches = evaluation_batches(
            reader,
            info,
            image_size=loader.image_size,
            micro_batch=loader.micro_batch,
            rank=comm.rank(),
            world_size=comm.world_size(),
            workers=loader.workers,
            tiles=tiles,
            keep_aspect=loader.keep_aspect,
        )
        with _evaluating(model), self._progress(f"{info.name} {self.split}", len(reader)) as advance:
            for batch in batches:
                yield from _predict(model, batch, self.device)
                advance(len(batch.samples))

    def _entries(self, model: Predictor, info: TaskInfo) -> list[dict[str, Any]]:
        mine = [(p.sample.order, entries_of(p, info)) for p in self.predictions(model, info)]
        gathered = [item for part in comm.all_gather_objects(mine) for item in part]
        return [entry for _, entries in sorted(gathered, key=lambda item: item[0]) for entry in entries]

    def _metric(self, model: Predictor, truth: GroundTruth) -> Metric:
        metric = _METRICS[truth.info.kind](truth.info.class_names)
        for prediction in self.predictions(model, truth.info):
            _UPDATES[truth.info.kind](metric, prediction, truth)
        parts = comm.all_gather_objects(metric)
        for other in parts[1:]:
            parts[0].merge(other)
        return parts[0]

    @contextlib.contextmanager
    def _progress(self, title: str, count: int) -> Iterator[Callable[[int], None]]:
        """Show a bar on rank 0; it counts that rank's images as standing for those of all."""
        if not (self.show_progress and comm.is_main()):
            yield lambda images: None
            return
        with progress_bar() as bar:
            line = bar.add_task(title, total=count)
            yield lambda images: bar.advance(line, images * comm.world_size())
            bar.update(line, completed=count)


@contextlib.contextmanager
def _evaluating(model: Predictor) -> Iterator[None]:
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)


def _predict(model: Predictor, batch: TaskBatch, device: torch.device | str) -> list[Prediction]:
    """Predict one batch; one without samples keeps this rank in step and gives nothing."""
    if batch.samples:
        with torch.no_grad():
            return [_on_cpu(p) for p in model.predict(batch.to(device))]
    height, width = batch.images_BCHW.shape[-2:]
    nobody = SampleInfo(key="", file_name="", height=height, width=width, image_id=0, order=0)
    with torch.no_grad():
        model.predict(replace(batch, samples=(nobody,) * len(batch)).to(device))
    return []


def _on_cpu(prediction: Prediction) -> Prediction:
    tensors = {
        name: getattr(prediction, name)
        for name in ("scores_K", "boxes_xyxy_N4", "scores_N", "labels_N", "mask_HW")
        if hasattr(prediction, name)
    }
    return replace(prediction, **{name: tensor.cpu() for name, tensor in tensors.items()})


def _update_accuracy(metric: Accuracy, prediction: Any, truth: GroundTruth) -> None:
    label = truth.read(prediction.sample.order)
    metric.update(prediction.scores_K.float().numpy()[None], [label])


def _update_boxes(metric: MeanAveragePrecision, prediction: Any, truth: GroundTruth) -> None:
    boxes_xyxy_N4 = prediction.boxes_xyxy_N4.float().numpy()
    boxes_xywh_N4 = boxes_xyxy_N4.copy()
    boxes_xywh_N4[:, 2:] -= boxes_xyxy_N4[:, :2]
    found = FoundBoxes(
        boxes_xywh_N4=boxes_xywh_N4,
        scores_N=prediction.scores_N.float().numpy(),
        labels_N=prediction.labels_N.numpy(),
    )
    metric.update(prediction.sample.order, found, truth.read(prediction.sample.order))


def _update_masks(metric: MeanIoU, prediction: Any, truth: GroundTruth) -> None:
    metric.update(prediction.mask_HW.numpy(), truth.read(prediction.sample.order))


_METRICS = {"classification": Accuracy, "detection": MeanAveragePrecision, "segmentation": MeanIoU}
_UPDATES = {"classification": _update_accuracy, "detection": _update_boxes, "segmentation": _update_masks}
