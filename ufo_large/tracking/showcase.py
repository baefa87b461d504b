"""Predict a few evenly spread images of a split and join them with image and truth, for the report."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch

from ufo_large.media.decode import decode_image, decode_labels
from ufo_large.data.evaluation_batches import evaluation_batches
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.shards import RawSample, ShardSet, SplitReader
from ufo_large.data.tiles import merge_tiles
from ufo_large.metrics import TrueBoxes
from ufo_large.structures import Prediction, TaskBatch, TaskInfo
from ufo_large.tracking.examples import PredictionExample

PER_TASK = 12


class Predictor(Protocol):
    """What is asked of a model: MultitaskModel and anything that answers like it."""

    training: bool

    def predict(self, batch: TaskBatch) -> list[Prediction]: ...

    def train(self, mode: bool = True) -> Any: ...


@dataclass(frozen=True, slots=True)
class ShownRows:
    """Some rows of a split, numbered 0..len-1; stands in for the reader where batches are made."""

    reader: SplitReader
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int) -> Any:
        return self.reader.sample(self.rows[index])

    def read(self, index: int) -> RawSample:
        return self.reader.read(self.rows[index])

    def shard_of(self, index: int) -> str:
        return self.reader.shard_of(self.rows[index])


def predict_examples(
    model: Predictor,
    shards: ShardSet,
    split: str,
    loaders: Mapping[str, LoaderConfig],
    *,
    only: Container[str] | None = None,
    device: torch.device | str = "cpu",
    per_task: int = PER_TASK,
) -> list[PredictionExample]:
    """Return up to `per_task` examples of every task that has the split, or of those in `only`.

    `loaders` are those of the evaluation: a task's input size and tiles by its name, else by its kind.
    Every caller predicts the same images, so one process is enough; a model whose parameters are
    sharded needs the call on all ranks.
    """
    was_training = model.training
    model.train(False)
    examples = []
    try:
        for info in shards.tasks:
            if shards.has_split(info.name, split) and (only is None or info.name in only):
                loader = loaders.get(info.name) or loaders[info.kind]
                shown = _shown_rows(shards.split(info.name, split), per_task)
                examples += _examples(shown, info, _predictions(model, shown, info, loader, device))
    finally:
        model.train(was_training)
    return examples


def truth_of(raw: RawSample, info: TaskInfo) -> int | TrueBoxes | np.ndarray:
    """Return the truth of a labelled sample: its class, its boxes (crowds left out), or its mask."""
    if info.kind == "classification":
        return int(raw.labels[0])
    if info.kind == "segmentation":
        return decode_labels(raw.mask)
    boxes_xywh = raw.boxes_xyxy[~raw.crowds].astype(np.float64)
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    return TrueBoxes(boxes_xywh_G4=boxes_xywh, labels_G=raw.labels[~raw.crowds])


def _shown_rows(reader: SplitReader, per_task: int) -> ShownRows:
    count = min(per_task, len(reader))
    return ShownRows(reader, tuple(int((i + 0.5) * len(reader) / count) for i in range(count)))


def _predictions(
    model: Predictor,
    shown: ShownRows,
    info: TaskInfo,
    loader: LoaderConfig,
    device: Any,
) -> Iterator[Prediction]:
    tiling = loader.tiles.for_task(info)
    batches = evaluation_batches(
        shown,
        info,
        image_size=loader.image_size,
        micro_batch=loader.micro_batch,
        rank=0,
        world_size=1,
        tiles=tiling,
        keep_aspect=loader.keep_aspect,
    )
    with torch.no_grad():
        found = (_on_cpu(p) for batch in batches for p in model.predict(batch.to(device)))
        yield from found if tiling is None else merge_tiles(found)


def _examples(shown: ShownRows, info: TaskInfo, found: Iterator[Prediction]) -> list[PredictionExample]:
    examples = []
    for index, prediction in enumerate(found):
        raw = shown.read(index)
        truth = truth_of(raw, info) if raw.labeled else None
        image_HW3 = decode_image(raw.image)
        examples.append(PredictionExample(info=info, image_HW3=image_HW3, prediction=prediction, truth=truth))
    return examples


def _on_cpu(prediction: Prediction) -> Prediction:
    """Bring tensors to the CPU, floating ones as float32 (NumPy knows no bfloat16)."""
    values = {f.name: getattr(prediction, f.name) for f in fields(prediction)}
    tensors = {name: v.cpu() for name, v in values.items() if isinstance(v, torch.Tensor)}
    return replace(prediction, **{k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
