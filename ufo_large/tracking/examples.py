"""Predictions worth a look: drawn while the model is at hand, kept beside the run, shown by the report."""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from ufo_large.config import Unreadable, read_json, write_json
from ufo_large.kinds import Card, PredictionExample, kind_of

FOLDER = "examples"
CARDS_FILE = "examples.json"


def save_examples(workdir: Path, examples: Iterable[PredictionExample]) -> Path:
    """Draw the examples into `<workdir>/examples/` (replacing what is there) and return the folder.

    `write_report` picks them up from there, without the model or the data.
    """
    folder = Path(workdir) / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cards = []
    for number, (_, card, picture_HW3) in enumerate(draw_examples(examples)):
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
    remedy = "score the run again with eval/run_all.py, which draws them anew"
    cards = read_json(path, remedy, finite=False)
    try:
        return [Card(**card) for card in cards]
    except (TypeError, ValueError) as error:
        raise Unreadable(path, f"not the cards of examples ({error})", remedy) from None


def draw_examples(
    examples: Iterable[PredictionExample],
) -> Iterator[tuple[PredictionExample, Card, np.ndarray]]:
    """Yield each example with its words and its drawn picture, RGB uint8, task by task."""
    by_task: dict[str, list[PredictionExample]] = {}
    for example in examples:
        by_task.setdefault(example.info.name, []).append(example)
    for own in by_task.values():
        for example, (card, picture) in zip(own, kind_of(own[0].info).draw(own), strict=True):
            yield example, card, picture
