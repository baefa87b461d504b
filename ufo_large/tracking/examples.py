"""Predictions worth a look: drawn once while the model is at hand, kept beside the run, shown by the report.

Legend: H W the stored image's height and width, K classes, N boxes.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ufo_large.metrics import TrueBoxes
from ufo_large.structures import (
    IGNORE_INDEX,
    BoxPrediction,
    ClassPrediction,
    MaskPrediction,
    Prediction,
    TaskInfo,
)
from ufo_large.tracking.drawing import class_color, draw_boxes, draw_mask, fit, focus

FOLDER = "examples"
MIN_SCORE = 0.3
MATCH_IOU = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionExample:
    """One image with what the model said and, where known, the truth.

    `image_HW3`: RGB uint8, the stored image. `truth`: the model's label (classification), `TrueBoxes`,
    or a mask uint8 [H, W] of model labels with 255 = ignore; None when the split has no ground truth.
    """

    info: TaskInfo
    image_HW3: np.ndarray
    prediction: Prediction
    truth: int | TrueBoxes | np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """An example as the report shows it: a drawn picture and words.

    `good` is None where nothing is known of the truth. `bars`: (class, probability) of the best guesses.
    `legend`: (class, "#rrggbb") of what is drawn. `picture` is the file's name in the folder.
    """

    task: str
    kind: str
    name: str
    headline: str
    picture: str = ""
    good: bool | None = None
    details: tuple[str, ...] = ()
    bars: tuple[tuple[str, float], ...] = ()
    legend: tuple[tuple[str, str], ...] = field(default=())


def save_examples(workdir: Path, examples: Iterable[PredictionExample]) -> Path:
    """Draw the examples into `<workdir>/examples/` (replacing what is there) and return the folder.

    `write_report` picks them up from there, without the model or the data.
    """
    folder = Path(workdir) / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cards = []
    for number, example in enumerate(examples):
        card, picture_HW3 = draw_example(example)
        name = f"{number:03d}_{card.task}.jpg"
        bgr = cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2BGR)
        if not cv2.imwrite(str(folder / name), bgr, [cv2.IMWRITE_JPEG_QUALITY, 85]):
            raise OSError(f"{folder / name}: could not be written; is the disk full?")
        cards.append(asdict(card) | {"picture": name})
    (folder / "examples.json").write_text(json.dumps(cards, indent=1), encoding="utf-8")
    return folder


def read_examples(workdir: Path) -> list[Card]:
    """Return the saved cards; empty where none were saved."""
    path = Path(workdir) / FOLDER / "examples.json"
    if not path.exists():
        return []
    return [Card(**card) for card in json.loads(path.read_text(encoding="utf-8"))]


def draw_example(example: PredictionExample) -> tuple[Card, np.ndarray]:
    """Return the words and the drawn picture of one example."""
    draw: Any = {
        ClassPrediction: _draw_class,
        BoxPrediction: _draw_found_boxes,
        MaskPrediction: _draw_masks,
    }
    return draw[type(example.prediction)](example)


def _card(example: PredictionExample, headline: str, **values: Any) -> Card:
    info = example.info
    name = example.prediction.sample.file_name
    return Card(task=info.name, kind=info.kind, name=name, headline=headline, **values)


def _draw_class(example: PredictionExample) -> tuple[Card, np.ndarray]:
    names, scores_K = example.info.class_names, example.prediction.scores_K.numpy()
    best = np.argsort(-scores_K, kind="stable")[:3]
    bars = tuple((names[i], float(scores_K[i])) for i in best)
    good = None if example.truth is None else int(best[0]) == int(example.truth)
    details = () if example.truth is None or good else (f"true: {names[int(example.truth)]}",)
    card = _card(example, names[best[0]], good=good, bars=bars, details=details)
    return card, fit(example.image_HW3, 400)[0]


def _draw_found_boxes(example: PredictionExample) -> tuple[Card, np.ndarray]:
    found, names, truth = example.prediction, example.info.class_names, example.truth
    sure = found.scores_N.numpy() >= MIN_SCORE
    boxes, labels = found.boxes_xyxy_N4.numpy()[sure], found.labels_N.numpy()[sure]
    scores = found.scores_N.numpy()[sure]
    true_boxes, true_labels = (np.zeros((0, 4)), np.zeros(0, int)) if truth is None else _corners(truth)
    left, top, right, bottom = focus(example.image_HW3, np.concatenate([boxes, true_boxes]))
    picture, scale = fit(example.image_HW3[top:bottom, left:right])
    origin = np.array([left, top, left, top])
    texts = [f"{names[k]} {100 * s:.0f}%" for k, s in zip(labels, scores, strict=True)]
    picture = draw_boxes(picture, (boxes - origin) * scale, texts, labels, (true_boxes - origin) * scale)
    zoomed = (right - left) < example.image_HW3.shape[1]
    details = (["zoomed in"] if zoomed else []) + [f"boxes with a score from {100 * MIN_SCORE:.0f} %"]
    shown = sorted({int(k) for k in labels})
    legend = tuple((names[k], _hex(class_color(k))) for k in shown)
    headline, good = _count_hits(boxes, labels, true_boxes, true_labels, known=truth is not None)
    return _card(example, headline, good=good, details=tuple(details), legend=legend), picture


def _corners(truth: TrueBoxes) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.asarray(truth.boxes_xywh_G4, dtype=float).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1), np.asarray(truth.labels_G)


def _count_hits(boxes, labels, true_boxes, true_labels, known: bool) -> tuple[str, bool | None]:
    """Match greedily, best score first, as the metric does: same class and IoU from 0.5."""
    if not known:
        return f"{len(boxes)} found", None
    free = list(range(len(true_boxes)))
    for box, label in zip(boxes, labels, strict=True):
        overlaps = [(_iou(box, true_boxes[g]), g) for g in free if true_labels[g] == label]
        if overlaps and max(overlaps)[0] >= MATCH_IOU:
            free.remove(max(overlaps)[1])
    hits = len(true_boxes) - len(free)
    wrong = len(boxes) - hits
    text = f"{hits} of {len(true_boxes)} found"
    return text + (f", {wrong} wrong" if wrong else ""), not free and not wrong


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    both = float(sides.prod())
    union = float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - both
    return both / union if union > 0 else 0.0


def _draw_masks(example: PredictionExample) -> tuple[Card, np.ndarray]:
    """Prediction left, truth right (or alone)."""
    mask, truth, names = example.prediction.mask_HW.numpy(), example.truth, example.info.class_names
    image, _ = fit(example.image_HW3, 480)
    masks = [mask] if truth is None else [mask, np.asarray(truth)]
    gap = np.full((image.shape[0], 6, 3), 255, np.uint8)
    pictures: Sequence[np.ndarray] = [draw_mask(image, m) for m in masks]
    picture = pictures[0] if truth is None else np.concatenate([pictures[0], gap, pictures[1]], axis=1)
    headline = "predicted"
    if truth is not None:
        counted = masks[1] != IGNORE_INDEX
        right = float((mask == masks[1])[counted].mean()) if counted.any() else float("nan")
        headline = f"{100 * right:.1f} % of pixels right"
    shown = sorted(set(np.unique(np.concatenate([m.ravel() for m in masks])).tolist()) - {IGNORE_INDEX})
    legend = tuple((names[k], _hex(class_color(k))) for k in shown)
    details = ("left: predicted, right: truth",) if truth is not None else ()
    return _card(example, headline, legend=legend, details=details), picture


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
