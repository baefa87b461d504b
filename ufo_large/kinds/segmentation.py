"""Segmentation: one class per pixel.

In a shard: `<key>.mask.png`, a model label per pixel, 255 = ignore; the index has one row per class that the
mask shows, with its pixels. In a submission: polygon rings by class id.

Legend: H W height and width, K classes, P points of a ring.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from ufo_large.kinds.answers import Repeated, named_answers, short
from ufo_large.kinds.base import Headline, Kind, Stored, StoredPicture
from ufo_large.kinds.cards import Card, PredictionExample, hex_color
from ufo_large.kinds.contest_classes import SEGMENTATION_NAMES
from ufo_large.kinds.ignored_class import report_ignored_class
from ufo_large.kinds.mask_review import MaskReview
from ufo_large.kinds.masks import INVALID, MaskCoding, MaskFile, padded, pasted, window_of_map
from ufo_large.kinds.polygons import Rings, mask_to_rings
from ufo_large.kinds.protocols import Protocol
from ufo_large.media.decode import decode_labels
from ufo_large.media.drawing import class_color, draw_mask, fit
from ufo_large.media.pictures import (
    FileFacts,
    Look,
    color_mask_facts,
    encode_mask,
    is_plain_mask,
    mask_facts,
    mask_values,
)
from ufo_large.metrics import MeanIoU
from ufo_large.structures import (
    FIX_REMEDY,
    IGNORE_INDEX,
    Example,
    MaskPrediction,
    MaskTargets,
    RawSample,
    Reporter,
    SampleInfo,
    TaskInfo,
    Window,
)

MAX_COORDINATE = 1 << 15
MAX_DIGITS = 19
MAX_MASKS = 1000
MAX_GRID = 512


class Segmentation(Kind):
    """Truth of a user's image: a `MaskFile`; of a stored one, and said: labels uint8 [H, W], 255 = ignore."""

    name = "segmentation"
    headline = Headline(name="miou", title="mIoU", label="mIoU")
    class_metrics = {"iou": "IoU"}
    input_size = (504, 1022)
    target_suffix = "mask.png"
    has_tiles = True
    fusions = ("mean",)
    in_submission = True
    contest = ("seg", 19)
    in_coco = True
    compares_classes = True
    form = '{"<stem>.png": {"<class id>": [[[x, y], ...], ...]}}'
    empty = "every pixel of the true masks is 255 (ignore); check the masks"

    def check_info(self, info: TaskInfo) -> None:
        if IGNORE_INDEX in info.class_ids[:IGNORE_INDEX]:
            named = info.class_names[info.class_ids.index(IGNORE_INDEX)]
            told = f"class {named!r} has the id {IGNORE_INDEX}, which means ignore in masks"
            raise ValueError(f"task {info.name!r}: {told}; write another id into masks and class list")

    def has_contest_classes(self, info: TaskInfo) -> bool:
        return info.class_names == SEGMENTATION_NAMES and info.class_ids == tuple(range(info.num_classes))

    def check_split(
        self,
        info: TaskInfo,
        examples: Sequence[Example],
        facts: Mapping[Path, FileFacts],
        report: Reporter,
    ) -> None:
        report_ignored_class(info, examples, facts, report)

    def files(self, truth: MaskFile) -> list[tuple[Path, Look]]:
        return [(truth.path, color_mask_facts if truth.coding.colors else mask_facts)]

    def checked(
        self, example: Example, facts: Mapping[Path, FileFacts], info: TaskInfo, report: Reporter
    ) -> Example | None:
        where, coding = example.truth.path, example.truth.coding
        mask, picture = facts[where], facts[example.image]
        if mask.error:
            report.add("mask", f"{where}: {mask.error}; replace the file, or {FIX_REMEDY}", where)
            return None
        if (mask.height, mask.width) != (picture.height, picture.width):
            size = f"{picture.width}x{picture.height}"
            told = f"{mask.width}x{mask.height}, but its picture {example.image.name} is {size}"
            report.add("mask", f"{where}: {told}; {FIX_REMEDY}", where)
            return None
        wrong = {v: n for v, n in mask.values.items() if coding.label_of(v) == INVALID}
        if wrong:
            show = ", ".join(f"{_show(v, coding)} ({n} pixels)" for v, n in list(wrong.items())[:5])
            remedy = f"give --classes {report.task}=N or a classes.txt if there are more, 255 means ignore"
            told = f"value {show} is none of the {info.num_classes} classes; {remedy}; or {FIX_REMEDY}"
            report.add("mask", f"{where}: {told}", where)
            return None
        return example

    def classes_of(self, truth: MaskFile, facts: Mapping[Path, FileFacts]) -> list[int]:
        return sorted({truth.coding.label_of(v) for v in facts[truth.path].values})

    def relabelled(self, truth: MaskFile, new_labels: Sequence[int]) -> MaskFile:
        return replace(truth, coding=truth.coding.renumbered(new_labels))

    def inputs(self, truth: MaskFile, facts: Mapping[Path, FileFacts]) -> Any:
        return facts[truth.path].sha256, truth.coding.table, truth.coding.colors

    def to_json(self, truth: MaskFile) -> dict[str, Any]:
        coding = truth.coding
        return {"path": str(truth.path.absolute()), "table": coding.table, "colors": coding.colors}

    def from_json(self, value: Mapping[str, Any]) -> MaskFile:
        colors = value["colors"] and {int(color): label for color, label in value["colors"].items()}
        return MaskFile(
            path=Path(value["path"]), coding=MaskCoding(table=tuple(value["table"]), colors=colors)
        )

    def mark(self, picture_HW3: np.ndarray, truth: MaskFile, scale: float) -> None:
        """Lay the classes over the picture; what is ignored, or no class, stays plain."""
        values = mask_values(truth.path.read_bytes(), colored=truth.coding.colors is not None)
        labels = truth.coding.labels_of(values)
        picture_HW3[:] = draw_mask(picture_HW3, np.where(labels == INVALID, IGNORE_INDEX, labels))

    def stored(self, truth: MaskFile, picture: StoredPicture) -> Stored:
        data = truth.path.read_bytes()
        values = mask_values(data, colored=truth.coding.colors is not None)
        labels = truth.coding.labels_of(values)
        if labels.min(initial=0) < 0:
            strange = np.unique(values[labels < 0]).tolist()
            raise ValueError(
                f"{truth.path}: the value(s) {strange} are no class; write class ids, and 255 for ignore"
            )
        labels = labels.astype(np.uint8)
        if picture.size not in (None, labels.shape):
            labels = cv2.resize(labels, picture.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        unchanged = labels.shape == values.shape and (labels == values).all() and is_plain_mask(data)
        found, counts = np.unique(labels[labels != IGNORE_INDEX], return_counts=True)
        target = data if unchanged else encode_mask(labels)
        return Stored(target=target, labels=found.tolist(), counts=counts.tolist())

    def truth(self, annotation: Mapping[str, Any], target: bytes) -> np.ndarray:
        return decode_labels(target)

    def load(self, raw: RawSample, window: Window) -> dict[str, Tensor]:
        return {"mask": window_of_map(raw, window, decode_labels, "mask")}

    def random_targets(
        self, info: TaskInfo, images: int, size: tuple[int, int], generator: torch.Generator, objects: int
    ) -> MaskTargets:
        masks_BHW = torch.randint(info.num_classes, (images, *size), generator=generator)
        return MaskTargets(masks_BHW=masks_BHW.to(torch.uint8))

    def collate(
        self, targets: Sequence[Mapping[str, Tensor]], sizes: Any, canvas: tuple[int, int]
    ) -> MaskTargets:
        return MaskTargets(masks_BHW=padded([t["mask"] for t in targets], canvas, IGNORE_INDEX))

    def merged(self, source: SampleInfo, parts: Sequence[MaskPrediction]) -> MaskPrediction:
        return MaskPrediction(sample=source, mask_HW=pasted(source, [(p.sample, p.mask_HW) for p in parts]))

    def mirrored(self, prediction: MaskPrediction) -> MaskPrediction:
        scores = prediction.scores and partial(_flipped, prediction.scores)
        return replace(prediction, mask_HW=prediction.mask_HW.flip(-1), scores=scores)

    def fused(self, views: Sequence[MaskPrediction], fusion: str) -> MaskPrediction:
        """The class with the best mean score at each pixel."""
        if any(view.scores is None for view in views):
            raise ValueError(
                "the task head gives masks without scores, which cannot be averaged; let its `predict` "
                "return `mask_predictions`, or leave loader.views"
            )
        total_KHW = sum(view.scores() for view in views)
        mask_HW = total_KHW.argmax(dim=0).to(torch.uint8).cpu()
        return MaskPrediction(sample=views[0].sample, mask_HW=mask_HW)

    def metric(self, info: TaskInfo, protocol: Protocol) -> MeanIoU:
        if protocol.background not in (IGNORE_INDEX, *info.class_ids):
            raise ValueError(
                f"{info.name}: protocol {protocol.name!r} takes what no ring covers for class "
                f"{protocol.background}, which this data set has not; use --protocol standard"
            )
        return MeanIoU(info.class_names, empty=protocol.empty_classes)

    def said(self, prediction: MaskPrediction) -> np.ndarray:
        return prediction.mask_HW.cpu().numpy()

    def review(self, info: TaskInfo) -> MaskReview:
        return MaskReview(info)

    def count(self, metric: MeanIoU, image: int, said: np.ndarray, truth: np.ndarray) -> None:
        metric.update(said, truth)

    def baselines(self, train: Any) -> dict[str, Callable[[SampleInfo], np.ndarray]]:
        """Everywhere the class most frequent in training; at every position the one most frequent there."""
        overall = int(np.argmax(train.class_histogram))
        by_position_HW = most_frequent_by_position(train, overall)
        return {
            "most_frequent_class": lambda s: np.full((s.height, s.width), overall, np.uint8),
            "most_frequent_class_per_position": lambda s: cv2.resize(
                by_position_HW, (s.width, s.height), interpolation=cv2.INTER_NEAREST
            ),
        }

    def answer_name(self, file_name: str) -> str:
        return PurePosixPath(file_name).with_suffix(".png").as_posix()

    def described(self, prediction: MaskPrediction, info: TaskInfo) -> dict[str, Any]:
        """The classes there are, the largest first; `value` is what stands for them in the encoded mask."""
        mask_HW, values = self.said(prediction), mask_file_values(info)
        pixels = np.bincount(mask_HW.ravel(), minlength=info.num_classes)[: info.num_classes]
        found = [
            {
                "class": info.class_names[k],
                "class_id": info.class_ids[k],
                "value": int(values[k]),
                "pixels": int(pixels[k]),
                "share": float(pixels[k] / mask_HW.size),
            }
            for k in np.argsort(-pixels, kind="stable")
        ]
        return {"classes": [one for one in found if one["pixels"]]}

    def encoded(self, prediction: MaskPrediction, info: TaskInfo) -> bytes:
        """A grey PNG of 8 bits with the user's class ids, or model labels where an id is above 254."""
        return encode_mask(mask_file_values(info)[self.said(prediction)])

    def coco_results(self, prediction: MaskPrediction, info: TaskInfo) -> list[dict[str, Any]]:
        """One run-length encoded region per class, as in COCO's stuff task."""
        mask_HW = self.said(prediction)
        found = []
        for label in np.unique(mask_HW[mask_HW < info.num_classes]).tolist():
            run = coco_mask.encode(np.asfortranarray(mask_HW == label).astype(np.uint8, order="F"))
            region = {"size": [int(v) for v in run["size"]], "counts": run["counts"].decode("ascii")}
            number = prediction.sample.order + 1
            found.append({"image_id": number, "category_id": info.class_ids[label], "segmentation": region})
        return found

    def entries(self, prediction: MaskPrediction, info: TaskInfo) -> list[dict[str, Any]]:
        rings = mask_to_rings(self.said(prediction))
        lists = {
            str(number): [ring.tolist() for ring in rings.get(label, [])]
            for label, number in enumerate(info.class_ids)
        }
        return [{self.answer_name(prediction.sample.file_name): lists}]

    def answers(
        self, raw: Any, info: TaskInfo, file_names: Sequence[str], report: Callable[[str], None]
    ) -> list[Rings | None]:
        names = [self.answer_name(name) for name in file_names]
        known = set(info.class_ids)
        parse = lambda name, value, tell: _rings(name, value, known, tell)
        return named_answers(raw, names, self.form, parse, report)

    def answered(self, answer: Rings, info: TaskInfo, truth: np.ndarray, protocol: Protocol) -> np.ndarray:
        return protocol.paint(answer, *truth.shape, info.class_ids)

    def draw(self, examples: Sequence[PredictionExample]) -> Iterator[tuple[Card, np.ndarray]]:
        for example in examples:
            yield _drawn(example)

    def overlay(self, example: PredictionExample) -> dict[str, Any]:
        names = dict(enumerate(example.info.class_names)) | {IGNORE_INDEX: "ignored"}
        layers = {"predictions": self.said(example.prediction)}
        layers |= {} if example.truth is None else {"truth": example.truth}
        return {
            "masks": {layer: {"mask_data": mask, "class_labels": names} for layer, mask in layers.items()}
        }


def _flipped(scores: Callable[[], Tensor]) -> Tensor:
    return scores().flip(-1)


def most_frequent_by_position(train: Any, overall: int) -> np.ndarray:
    """Return the most frequent class at every position, uint8 [H, W]; `overall` where none was ever seen.

    Counted on up to 1,000 evenly spread masks, scaled to the commonest size or, if that is longer, to 512.
    """
    sizes = Counter(zip(train.heights.tolist(), train.widths.tolist(), strict=True))
    (height, width), _ = sizes.most_common(1)[0]
    scale = min(1.0, MAX_GRID / max(height, width))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    counts_KHW = np.zeros((train.info.num_classes, height, width), np.int32)
    spread = np.linspace(0, len(train) - 1, min(len(train), MAX_MASKS)).round().astype(int)
    for row in np.unique(spread).tolist():
        mask_HW = train.truth(row)
        mask_HW = cv2.resize(mask_HW, (width, height), interpolation=cv2.INTER_NEAREST)
        for label in np.unique(mask_HW[mask_HW != IGNORE_INDEX]).tolist():
            counts_KHW[label] += mask_HW == label
    frequent_HW = counts_KHW.argmax(axis=0).astype(np.uint8)
    frequent_HW[counts_KHW.sum(axis=0) == 0] = overall
    return frequent_HW


def mask_file_values(info: TaskInfo) -> np.ndarray:
    """Return what stands for each label 0..254 in a mask file, uint8 [256]: the class id where all fit."""
    values = np.arange(256, dtype=np.uint8)
    if all(0 <= number < IGNORE_INDEX for number in info.class_ids):
        values[: info.num_classes] = info.class_ids
    return values


def _show(value: int, coding: MaskCoding) -> str:
    return str(value) if coding.colors is None else f"#{value:06x}"


def _rings(name: str, value: Any, known: set[int], report: Callable[[str], None]) -> Rings | None:
    if not isinstance(value, dict) or isinstance(value, Repeated):
        report(f"{name!r} is {short(value)}; write an object with one list of rings a class id")
        return None
    rings: Rings = {}
    for key, of_class in value.items():
        number = int(key) if key.isascii() and key.isdigit() and len(key) <= MAX_DIGITS else None
        if number not in known:
            listed = ", ".join(map(str, sorted(known)))
            report(f"{name!r} names the class {key[:80]!r}; the data set has {listed}; write one of them")
            continue
        parsed = _rings_of_class(of_class)
        if parsed is None:
            rings_of = of_class if isinstance(of_class, list) else [of_class]
            bad = next(ring for ring in rings_of if _rings_of_class([ring]) is None)
            report(f"{name!r}, class {key}: {short(bad)} is no ring; write a list of [x, y] pixels")
            continue
        rings[number] = parsed
    return rings


def _rings_of_class(raw: Any) -> list[np.ndarray] | None:
    """Return rings, int32 [P, 2], fractions cut off; None where one is no ring."""
    if not isinstance(raw, list) or not all(isinstance(ring, list) for ring in raw):
        return None
    points = [point for ring in raw for point in ring]
    try:
        if not set(map(type, itertools.chain.from_iterable(points))) <= {int, float}:
            return None  # NumPy would take "1" and true
        points_P2 = np.array(points, np.float64) if points else np.empty((0, 2))
    except (TypeError, ValueError):
        return None
    if points_P2.ndim != 2 or points_P2.shape[1] != 2 or not (np.abs(points_P2) < MAX_COORDINATE).all():
        return None
    points_P2 = points_P2.astype(np.int32)
    ends = list(itertools.accumulate(len(ring) for ring in raw))
    return [points_P2[end - len(ring) : end] for ring, end in zip(raw, ends, strict=True)]


def _drawn(example: PredictionExample) -> tuple[Card, np.ndarray]:
    """Prediction left, truth right (or alone)."""
    mask, truth, names = example.prediction.mask_HW.numpy(), example.truth, example.info.class_names
    image, _ = fit(example.image_HW3, example.long_side or 480)
    masks = [mask] if truth is None else [mask, np.asarray(truth)]
    gap = np.full((image.shape[0], 6, 3), 255, np.uint8)
    pictures = [draw_mask(image, m) for m in masks]
    picture = pictures[0] if truth is None else np.concatenate([pictures[0], gap, pictures[1]], axis=1)
    headline = "predicted"
    if truth is not None:
        counted = masks[1] != IGNORE_INDEX
        right = float((mask == masks[1])[counted].mean()) if counted.any() else float("nan")
        headline = f"{100 * right:.1f} % of pixels right"
    shown = sorted(set(np.unique(np.concatenate([m.ravel() for m in masks])).tolist()) - {IGNORE_INDEX})
    legend = tuple((names[k], hex_color(class_color(k))) for k in shown)
    details = ("left: predicted, right: truth",) if truth is not None else ()
    return example.card(headline, legend=legend, details=details, wide=True), picture
