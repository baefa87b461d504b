"""Run the model over a split, on one rank or several, and gather what is wanted of its predictions."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch

from ufo_large.data.evaluation_batches import evaluation_batches
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.progress import progress_bar
from ufo_large.data.shards import ShardSet
from ufo_large.data.tiles import merge_tiles
from ufo_large.distributed import comm
from ufo_large.evaluation.ground_truth import GroundTruth, truth_of_shards
from ufo_large.evaluation.reviewed import Reviewed
from ufo_large.evaluation.score import summary
from ufo_large.evaluation.shown_rows import ShownRows
from ufo_large.kinds import kind_of
from ufo_large.kinds.protocols import Protocol as ScoringProtocol
from ufo_large.kinds.protocols import get_protocol
from ufo_large.kinds.review import Review
from ufo_large.metrics import Metric
from ufo_large.processes.heartbeat import beat
from ufo_large.structures import Prediction, SampleInfo, TaskBatch, TaskInfo, on_cpu


class Predictor(Protocol):
    """What is asked of a model: MultitaskModel and anything that answers like it."""

    training: bool

    def predict(self, batch: TaskBatch) -> list[Prediction]: ...

    def train(self, mode: bool = True) -> Any: ...


class Gathered(NamedTuple):
    """What all ranks together predicted, by task.

    `entries`: the submission's, in official order, of tasks whose kind has a form in it; `confidences`: one
    per image of those (`Kind.confidence`). `metrics` and `reviews`: of the other labelled tasks.
    """

    entries: dict[str, list[dict[str, Any]]]
    metrics: dict[str, Metric]
    confidences: dict[str, list[float | None]]
    reviews: dict[str, Review]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluator:
    """Predicts one split of a data set; made once, used as often as wanted.

    `loaders` gives each task (by name, else by kind) its input size, micro-batch, tiles and views. `only`
    names the tasks that the model knows, where it does not know all. `patch`: the side of the trunk's
    patches, in which other scales are counted. `bfloat16`: predict under autocast to it, where the model's
    weights are float32. Every rank of the process group must call each
    method: they predict different images, and take the same number of forward passes because ZeRO-3 gathers
    parameters in them. Batches do not depend on the number of ranks, so neither do the figures.
    """

    shards: ShardSet
    loaders: Mapping[str, LoaderConfig]
    split: str = "test"
    only: tuple[str, ...] | None = None
    patch: int = 1
    device: torch.device | str = "cpu"
    bfloat16: bool = False
    show_progress: bool = True

    @property
    def inputs(self) -> dict[str, str]:
        """Say per task how its images are shown to the network. ValueError where that does not suit it."""
        mark = ", bfloat16" if self.bfloat16 else ""
        return {info.name: _in_words(info.choose(self.loaders), info) + mark for info in self.tasks}

    @property
    def tasks(self) -> list[TaskInfo]:
        """The tasks that have this split, of those that the model knows."""
        known = [t for t in self.shards.tasks if self.only is None or t.name in self.only]
        return [info for info in known if self.shards.has_split(info.name, self.split)]

    def predictions(
        self, model: Predictor, info: TaskInfo, shown: ShownRows | None = None
    ) -> Iterator[Prediction]:
        """Yield this rank's predictions of one task, on the CPU. The model is in evaluation mode then.

        With `shown`, only of those images, and the same on every rank.
        """
        loader = info.choose(self.loaders)
        found = self._raw_predictions(model, info, loader, shown)
        yield from found if loader.tiles.for_task(info) is None else merge_tiles(info, found)

    def gathered(self, model: Predictor, protocol: ScoringProtocol) -> Gathered:
        """Predict every task once; equal on every rank."""
        found = Gathered({}, {}, {}, {})
        for info in self.tasks:
            name = info.name
            if kind_of(info).in_submission:
                found.entries[name], found.confidences[name] = self._entries(model, info)
            elif self.shards.split(name, self.split).labeled:
                found.reviews[name] = review = kind_of(info).review(info)
                found.metrics[name] = self._metric(model, self.truths[name], protocol, review)
        return found

    @property
    def truths(self) -> dict[str, GroundTruth]:
        """The truth of each task that has one, of those that the model knows; empty where there is none."""
        labeled = [info for info in self.tasks if self.shards.split(info.name, self.split).labeled]
        if not labeled:
            return {}
        names = {info.name for info in labeled}
        return {n: t for n, t in truth_of_shards(self.shards, self.split).items() if n in names}

    def validate(self, model: Predictor, worst: int = 0) -> tuple[dict[str, float], dict[str, Reviewed]]:
        """Return `<task>/<metric>` and `score` by the protocol `standard`, and per task images worth a look.

        At most `worst` of those for each reason. Equal on every rank. Straight from the predictions, without
        the detour over a submission; what a trainer calls. What the split cannot tell, such as mAP50 of
        images without a box, is left out.
        """
        values: dict[str, float] = {}
        headlines: dict[str, float] = {}
        reviewed: dict[str, Reviewed] = {}
        truths, protocol = self.truths, get_protocol("standard")
        for name, truth in truths.items():
            review = kind_of(truth.info).review(truth.info) if worst else None
            metric = self._metric(model, truth, protocol, review)
            found = metric.compute()
            if review is not None:
                reviewed[name] = Reviewed.of(review, metric, worst)
            values |= {f"{name}/{key}": value for key, value in found.items() if not math.isnan(value)}
            headline = found[kind_of(truth.info).headline.name]
            headlines |= {} if math.isnan(headline) else {name: headline}
        score = summary({n: t.info for n, t in truths.items()}, headlines, protocol.name)["score"]
        return (values if score is None else values | {"score": score}), reviewed

    def _raw_predictions(
        self, model: Predictor, info: TaskInfo, loader: LoaderConfig, shown: ShownRows | None
    ) -> Iterator[Prediction]:
        """Yield a prediction per image, or per tile; its views are joined."""
        views = loader.views.for_task(info)
        canvases = views.canvases(loader.image_size, self.patch)
        scales = [self._batches(info, loader, canvas, shown) for canvas in canvases]
        total = 0 if shown else len(self.shards.split(info.name, self.split))
        with _evaluating(model), self._progress(f"{info.name} {self.split}", total) as advance:
            for number, batches in enumerate(zip(*scales, strict=True)):
                beat(f"predicting task {info.name}, split {self.split}, batch {number}")
                yield from views.predicted(info, batches, lambda b: self._predict(model, b))
                advance(len(batches[0].samples))

    def _predict(self, model: Predictor, batch: TaskBatch) -> list[Prediction]:
        """Predict one batch; one without samples keeps this rank in step and gives nothing."""
        kind = torch.device(self.device).type
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=self.bfloat16):
            if batch.samples:
                return [on_cpu(p) for p in model.predict(batch.to(self.device))]
            height, width = batch.images_BCHW.shape[-2:]
            nobody = SampleInfo(key="", file_name="", height=height, width=width, image_id=0, order=0)
            model.predict(replace(batch, samples=(nobody,) * len(batch)).to(self.device))
        return []

    def _batches(
        self, info: TaskInfo, loader: LoaderConfig, canvas: tuple[int, int], shown: ShownRows | None
    ) -> Iterator[TaskBatch]:
        return evaluation_batches(
            self.shards.split(info.name, self.split) if shown is None else shown,
            info,
            image_size=canvas,
            micro_batch=loader.micro_batch,
            rank=comm.rank() if shown is None else 0,
            world_size=comm.world_size() if shown is None else 1,
            workers=loader.workers if shown is None else 0,
            tiles=loader.tiles.for_task(info),
            keep_aspect=loader.keep_aspect,
        )

    def _entries(self, model: Predictor, info: TaskInfo) -> tuple[list[dict[str, Any]], list[float | None]]:
        """Return the entries and each image's confidence, both in official order."""
        kind = kind_of(info)
        mine = [
            (p.sample.order, kind.entries(p, info), kind.confidence(p)) for p in self.predictions(model, info)
        ]
        parts = comm.all_gather_objects(mine)
        images = sorted((item for part in parts for item in part), key=lambda item: item[0])
        return [entry for _, entries, _ in images for entry in entries], [c for *_, c in images]

    def _metric(
        self, model: Predictor, truth: GroundTruth, protocol: ScoringProtocol, review: Review | None = None
    ) -> Metric:
        """Return the metric of all ranks; `review`, where it is given, sees the images of all too."""
        kind = kind_of(truth.info)
        metric = kind.metric(truth.info, protocol)
        for prediction in self.predictions(model, truth.info):
            order, said = prediction.sample.order, kind.said(prediction)
            true = truth.read(order)
            kind.count(metric, order, said, true)
            if review is not None:
                review.add(order, said, true, kind.confidence(prediction))
        parts = comm.all_gather_objects((metric, review))
        merged = parts[0][0]
        for rank, (other, seen) in enumerate(parts):
            if rank:
                merged.merge(other)
            if review is not None:
                review.merge(seen)
        return merged

    @contextlib.contextmanager
    def _progress(self, title: str, count: int) -> Iterator[Callable[[int], None]]:
        """Show a bar on rank 0; it counts that rank's images as standing for those of all."""
        if not (count and self.show_progress and comm.is_main()):
            yield lambda images: None
            return
        with progress_bar() as bar:
            line = bar.add_task(title, total=count)
            yield lambda images: bar.advance(line, images * comm.world_size())
            bar.update(line, completed=count)


def _in_words(loader: LoaderConfig, info: TaskInfo) -> str:
    tiles, views = loader.tiles.for_task(info), loader.views.for_task(info)
    told = ["{}x{}".format(*loader.image_size)]
    if tiles is not None:
        told.append(f"{tiles.rows} x {tiles.columns} tiles" + (" and the whole" if tiles.whole else ""))
    if views.scales != (1.0,):
        told.append(f"scales {' '.join(f'{scale:g}' for scale in views.scales)}")
    if views.flip:
        told.append("flip")
    return ", ".join([*told, views.fusion] if views.fusion else told)


@contextlib.contextmanager
def _evaluating(model: Predictor) -> Iterator[None]:
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)
