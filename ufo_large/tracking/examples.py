"""Predictions worth a look: drawn once while the model is at hand, kept beside the run, shown by the report.

Legend: H W the stored image's height and width, K classes, N boxes.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ufo_large.config import read_json, write_json
from ufo_large.metrics import TrueBoxes
from ufo_large.structures import (
    IGNORE_INDEX,
    BoxPrediction,
    ClassPrediction,
    Prediction,
    TaskInfo,
)
from ufo_large.tracking.box_hits import DEFAULT_SCORE, Hits, best_score, corners, match
from ufo_large.media.drawing import class_color, draw_boxes, draw_mask, fit, focus

FOLDER = "examples"
CARDS_FILE = "examples.json"


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

    `good` is None where it cannot be said in one word. `wanted`: the right class, if another was said.
    `bars`: (class, probability) of the best guesses. `legend`: (class, "#rrggbb") of what is drawn. `picture`
    is the file's name in the folder.
    """

    task: str
    kind: str
    name: str
    headline: str
    picture: str = ""
    good: bool | None = None
    wanted: str = ""
    details: tuple[str, ...] = ()
    bars: tuple[tuple[str, float], ...] = ()
    legend: tuple[tuple[str, str], ...] = field(default=())

    @property
    def caption(self) -> str:
        """One line: the file, what was found and, where a class was wrong, the right one."""
        wanted = f", wanted {self.wanted}" if self.wanted else ""
        return f"{self.name}: {self.headline}{wanted}"


def save_examples(workdir: Path, examples: Iterable[PredictionExample]) -> Path:
    """Draw the examples into `<workdir>/examples/` (replacing what is there) and return the folder.

    `write_report` picks them up from there, without the model or the data.
    """
    folder = Path(workdir) / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cards = []
    for number, (card, picture_HW3) in enumerate(draw_examples(examples)):
        name = f"{number:03d}_{card.task}.jpg"
        bgr = cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2BGR)
        if not cv2.imwrite(str(folder / name), bgr, [cv2.IMWRITE_JPEG_QUALITY, 85]):
            raise OSError(f"{folder / name}: could not be written; is the disk full?")
        cards.append(asdict(card) | {"picture": name})
    write_json(folder / CARDS_FILE, cards)
    return folder


def read_examples(workdir: Path) -> list[Card]:
    """Return the saved cards; empty where none were saved."""
    path = Path(workdir) / FOLDER / CARDS_FILE
    if not path.exists():
        return []
    cards = read_json(path, "score the run again with eval/run_all.py, which draws them anew")
    return [Card(**card) for card in cards]


def draw_examples(examples: Iterable[PredictionExample]) -> Iterator[tuple[Card, np.ndarray]]:
    """Yield the words and the drawn picture, RGB uint8, of each example.

    Boxes are drawn from the score on that gives the best F1 over the examples of their task.
    """
    examples = list(examples)
    scores = _scores_to_draw(examples)
    for example in examples:
        yield draw_example(example, scores.get(example.info.name, DEFAULT_SCORE))


def draw_example(example: PredictionExample, min_score: float = DEFAULT_SCORE) -> tuple[Card, np.ndarray]:
    """Return the words and the drawn picture of one example; boxes below `min_score` are not drawn."""
    if isinstance(example.prediction, ClassPrediction):
        return _draw_class(example)
    if isinstance(example.prediction, BoxPrediction):
        return _draw_found_boxes(example, min_score)
    return _draw_masks(example)


def _scores_to_draw(examples: Sequence[PredictionExample]) -> dict[str, float]:
    """Return, for each detection task, the score from which boxes are drawn: the best F1 on these images."""
    hits: dict[str, list[Hits]] = {}
    for e in examples:
        if isinstance(e.prediction, BoxPrediction) and e.truth is not None:
            hits.setdefault(e.info.name, []).append(match(e.prediction, e.truth))
    return {task: best_score(found) for task, found in hits.items()}


def _card(example: PredictionExample, headline: str, **values: Any) -> Card:
    info = example.info
    name = example.prediction.sample.file_name
    return Card(task=info.name, kind=info.kind, name=name, headline=headline, **values)


def _draw_class(example: PredictionExample) -> tuple[Card, np.ndarray]:
    names, scores_K = example.info.class_names, example.prediction.scores_K.numpy()
    best = np.argsort(-scores_K, kind="stable")[:3]
    bars = tuple((names[i], float(scores_K[i])) for i in best)
    good = None if example.truth is None else int(best[0]) == int(example.truth)
    wanted = "" if good is not False else names[int(example.truth)]
    card = _card(example, names[best[0]], good=good, bars=bars, wanted=wanted)
    return card, fit(example.image_HW3, 400)[0]


def _draw_found_boxes(example: PredictionExample, min_score: float) -> tuple[Card, np.ndarray]:
    found, names, truth = example.prediction, example.info.class_names, example.truth
    sure = found.scores_N.numpy() >= min_score
    boxes, labels = found.boxes_xyxy_N4.numpy()[sure], found.labels_N.numpy()[sure]
    scores = found.scores_N.numpy()[sure]
    true_boxes = np.zeros((0, 4)) if truth is None else corners(truth)
    left, top, right, bottom = focus(example.image_HW3, np.concatenate([boxes, true_boxes]))
    picture, scale = fit(example.image_HW3[top:bottom, left:right])
    origin = np.array([left, top, left, top])
    texts = [f"{names[k]} {100 * s:.0f}%" for k, s in zip(labels, scores, strict=True)]
    picture = draw_boxes(picture, (boxes - origin) * scale, texts, labels, (true_boxes - origin) * scale)
    zoomed = ("zoomed in",) if right - left < example.image_HW3.shape[1] else ()
    legend = tuple((names[k], _hex(class_color(k))) for k in sorted({int(k) for k in labels}))
    headline, good = f"{len(boxes)} found", None
    if truth is not None:
        hits, wrong = match(found, truth).from_score(min_score)
        headline = f"{hits} of {len(true_boxes)} found" + (f", {wrong} wrong" if wrong else "")
        good = hits == len(true_boxes) and not wrong
    dashes = ("white dashes: truth",) if truth is not None else ()
    details = (f"boxes from {100 * min_score:.0f} %", *dashes, *zoomed)
    return _card(example, headline, good=good, details=details, legend=legend), picture


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
