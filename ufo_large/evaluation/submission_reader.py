"""Read a submission file in either form found in the wild; list everything that is wrong with it.

The first form is that of `submission`; in the second, of the contest's page, `cls` and `seg` are one dict
each.

Legend: N boxes of one image, P points of a ring.
"""

import contextlib
import gc
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ufo_large.config import Problems, did_you_mean
from ufo_large.evaluation.ground_truth import GroundTruth
from ufo_large.kinds.polygons import Rings
from ufo_large.evaluation.submission import Answer
from ufo_large.metrics import FoundBoxes

MAX_COORDINATE = 1 << 15


class _Repeated(dict):
    """A JSON object in which keys stand twice; plain dict would silently keep the last."""

    keys_twice: list[str]


def read_submission(file: str | Path, truths: Mapping[str, GroundTruth]) -> dict[str, list[Answer]]:
    """Read either form; answers[task][i] is for image i of `truths[task]`.

    Tasks that `truths` does not know are not read. Raises one ValueError that lists every image missing,
    named twice or unknown and every malformed class, box or ring, each with the remedy.
    """
    raw = _load(Path(file))
    problems = Problems(f"submission {file}")
    answers: dict[str, list[Answer]] = {}
    for task, truth in truths.items():
        if task in raw:
            reader = _TaskReader(task, truth, problems)
            answers[task] = (
                reader.boxes(raw[task]) if truth.info.kind == "detection" else reader.named(raw[task])
            )
        else:
            problems.add(f"no entry {task!r}, which the test set has; add it.{did_you_mean(task, raw)}")
    problems.raise_if_any()
    return answers


def _load(file: Path) -> dict[str, Any]:
    try:
        with _no_garbage_collection():
            raw = json.loads(file.read_bytes(), object_pairs_hook=_object)
    except FileNotFoundError:
        raise ValueError(f"submission {file}: no such file; eval/run_all.py --workdir writes one") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"submission {file}: cannot be read as JSON ({error}); write it again") from None
    if not isinstance(raw, dict):
        raise ValueError(f"submission {file}: a JSON {type(raw).__name__}; write an object with a key a task")
    if isinstance(raw, _Repeated):
        raise ValueError(f"submission {file}: the key(s) {raw.keys_twice} stand twice; keep one of each")
    return raw


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of new lists that all stay make the collector look at them again and again: 3 times slower."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    seen: set[str] = set()
    repeated = _Repeated(plain)
    repeated.keys_twice = [key for key, _ in pairs if key in seen or seen.add(key)]
    return repeated


class _TaskReader:
    def __init__(self, task: str, truth: GroundTruth, problems: Problems):
        self.task, self.truth, self.problems = task, truth, problems

    def report(self, message: str) -> None:
        self.problems.add(f"{self.task}: {message}")

    def named(self, raw: Any) -> list[Answer]:
        """Read answers that go by name: classes and masks."""
        parse, form = self._parser()
        place = {name: i for i, name in enumerate(self.truth.answer_names)}
        answers: dict[str, Answer | None] = {}
        for name, value in self._pairs(raw, form):
            if name not in place:
                self.report(f"{name!r} is no image of the test set; remove it, or correct the name")
            elif name in answers:
                self.report(f"{name!r} is answered twice; keep one")
            else:
                answers[name] = parse(name, value)
        for name in place:
            if name not in answers:
                self.report(f"{name!r} has no answer; add {form}")
        return [answers.get(name) for name in place]

    def _parser(self) -> tuple[Callable[[str, Any], Answer | None], str]:
        if self.truth.info.kind == "classification":
            return self._class_id, '{"<image>": <class id>}'
        return self._rings, '{"<stem>.png": {"<class id>": [[[x, y], ...], ...]}}'

    def _pairs(self, raw: Any, form: str) -> Iterator[tuple[str, Any]]:
        """Yield (name, value) of a list of dicts or of one dict; a name that stands twice comes twice."""
        if not isinstance(raw, list | dict):
            self.report(f"a JSON {type(raw).__name__}; write a list of {form}")
            return
        for position, item in enumerate(raw if isinstance(raw, list) else [raw]):
            if not isinstance(item, dict):
                self.report(f"entry {position} is {_short(item)}; write {form}")
                continue
            yield from item.items()
            if isinstance(item, _Repeated):
                yield from ((key, item[key]) for key in item.keys_twice)

    def _class_id(self, name: str, value: Any) -> int | None:
        if not _is_int(value):
            self.report(f"{name!r} has the class {_short(value)}; write a whole number")
            return None
        return value

    def _rings(self, name: str, value: Any) -> Rings | None:
        if not isinstance(value, dict) or isinstance(value, _Repeated):
            self.report(f"{name!r} is {_short(value)}; write an object with one list of rings a class id")
            return None
        rings: Rings = {}
        known = set(self.truth.info.class_ids)
        for key, of_class in value.items():
            number = int(key) if key.isascii() and key.isdigit() else None
            if number not in known:
                listed = ", ".join(map(str, sorted(known)))
                self.report(f"{name!r} names the class {key!r}; the data set has {listed}")
                continue
            parsed = _rings_of_class(of_class)
            if parsed is None:
                rings_of = of_class if isinstance(of_class, list) else [of_class]
                bad = next(ring for ring in rings_of if _rings_of_class([ring]) is None)
                self.report(f"{name!r}, class {key}: {_short(bad)} is no ring; write a list of [x, y] pixels")
                continue
            rings[number] = parsed
        return rings

    def boxes(self, raw: Any) -> list[Answer]:
        """Read detections; an image may have none."""
        of_image: list[list[dict[str, Any]]] = [[] for _ in range(len(self.truth))]
        if not isinstance(raw, list):
            self.report(f"a JSON {type(raw).__name__}; write a list of detections")
            return []
        for position, item in enumerate(raw):
            problem = self._box_problem(item)
            if problem:
                self.report(f"entry {position}: {problem}")
            else:
                of_image[item["image_id"] - 1].append(item)
        return [_found_boxes(items) for items in of_image]

    def _box_problem(self, item: Any) -> str | None:
        if not isinstance(item, dict) or not {"image_id", "category_id", "bbox", "score"} <= item.keys():
            return f"{_short(item)} is no detection; it needs image_id, category_id, bbox and score"
        image, box = item["image_id"], item["bbox"]
        if not _is_int(image) or not 1 <= image <= len(self.truth):
            return (
                f"image_id {_short(image)} is no image; write the image's 1-based line in test.txt "
                f"(1..{len(self.truth)}), not its COCO id"
            )
        where = f"image_id {image} ({self.truth.file_names[image - 1]})"
        if not _is_int(item["category_id"]):
            return f"{where} has category_id {_short(item['category_id'])}; write a whole number"
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)) or min(box[2:]) < 0:
            return f"{where} has bbox {_short(box)}; write four numbers [x, y, width, height]"
        if not _is_number(item["score"]):
            return f"{where} has score {_short(item['score'])}; write a number"
        return None


def _found_boxes(items: list[dict[str, Any]]) -> FoundBoxes:
    return FoundBoxes(
        boxes_xywh_N4=np.array([item["bbox"] for item in items], np.float64).reshape(-1, 4),
        scores_N=np.array([item["score"] for item in items], np.float64),
        labels_N=np.array([item["category_id"] for item in items], np.int64),
    )


def _rings_of_class(raw: Any) -> list[np.ndarray] | None:
    """Return rings, int32 [P, 2], fractions cut off; None where one is no ring."""
    if not isinstance(raw, list) or not all(isinstance(ring, list) for ring in raw):
        return None
    try:
        points_P2 = np.array([point for ring in raw for point in ring], np.float64)
    except (TypeError, ValueError):
        return None
    if not points_P2.size:
        points_P2 = points_P2.reshape(-1, 2)
    if points_P2.ndim != 2 or points_P2.shape[1] != 2 or not (np.abs(points_P2) < MAX_COORDINATE).all():
        return None
    points_P2 = points_P2.astype(np.int32)
    ends = list(itertools.accumulate(len(ring) for ring in raw))
    return [points_P2[end - len(ring) : end] for ring, end in zip(raw, ends, strict=True)]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
