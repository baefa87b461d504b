"""Detection: boxes with classes.

In a shard: `{"boxes_xyxy": [[x0, y0, x1, y1]], "labels": [i], "iscrowd": [0], "area": [a]}` in pixels of the
stored image, and one row per box in the index. In a submission: one entry per box.

Legend: N found boxes, G true boxes of one image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert

from ufo_large.kinds.answers import is_int, is_number, short
from ufo_large.kinds.base import Column, Headline, Kind, Stored, StoredPicture
from ufo_large.kinds.box_fusion import fused_boxes
from ufo_large.kinds.box_review import BoxReview
from ufo_large.kinds.boxes import (
    MAX_BOXES,
    Box,
    Hits,
    best_score,
    corners,
    keep_visible,
    match,
    merged_boxes,
    without_crowds,
)
from ufo_large.kinds.cards import Card, PredictionExample, hex_color
from ufo_large.kinds.protocols import Protocol
from ufo_large.media.drawing import LONG_SIDE, class_color, draw_boxes, fit, focus
from ufo_large.media.pictures import FileFacts
from ufo_large.metrics import FoundBoxes, MeanAveragePrecision, TrueBoxes
from ufo_large.structures import (
    FIX_REMEDY,
    BoxPrediction,
    BoxTargets,
    Example,
    RawSample,
    Reporter,
    SampleInfo,
    TaskInfo,
    Window,
)

ROUNDING_PX = 1.0
CROSS = (230, 30, 30)

Boxes = tuple[Box, ...]


class Detection(Kind):
    """Truth of a user's image: its `Box`es; of a stored one: `TrueBoxes`. Said: `FoundBoxes`."""

    name = "detection"
    headline = Headline(name="map50", title="mAP50", label="mAP50")
    class_metrics = {"ap50": "AP50"}
    columns = {"boxes_xyxy": Column(dtype=np.float32, shape=(4,)), "crowds": Column(dtype=np.bool_)}
    input_size = (1022, 1022)
    has_tiles = True
    whole_tile = True
    fusions = ("nms", "wbf")
    in_submission = True
    contest = ("dec", 45)
    counts_objects = True
    in_coco = True
    form = '{"image_id": ..., "category_id": ..., "bbox": [x, y, width, height], "score": ...}'
    empty = "the ground truth holds no box but crowds, so there is no mAP; check its JSON"

    def checked(
        self, example: Example, facts: Mapping[Path, FileFacts], info: TaskInfo, report: Reporter
    ) -> Example:
        """Clip boxes to the picture and drop empty ones.

        Boxes of test that stick out by no more than rounding stay as they are, as the evaluator reads them.
        """
        picture = facts[example.image]
        kept = [_checked_box(box, picture.height, picture.width, example, report) for box in example.truth]
        return replace(example, truth=tuple(box for box in kept if box is not None))

    def classes_of(self, truth: Boxes, facts: Any) -> list[int]:
        return [box.label for box in truth]

    def relabelled(self, truth: Boxes, new_labels: Sequence[int]) -> Boxes:
        return tuple(replace(box, label=new_labels[box.label]) for box in truth)

    def to_json(self, truth: Boxes) -> list[dict[str, Any]]:
        return [asdict(box) for box in truth]

    def from_json(self, value: list[dict[str, Any]]) -> Boxes:
        return tuple(Box(**{**box, "xyxy": tuple(box["xyxy"])}) for box in value)

    def change(self, before: Boxes, after: Boxes) -> str:
        if before == after:
            return ""
        clipped = len([box for box in after if box not in before])
        return f"{clipped} box(es) clipped, {len(before) - len(after)} dropped"

    def mark(self, picture_HW3: np.ndarray, truth: Boxes, scale: float) -> None:
        """Draw the boxes in the colours of their classes, a red cross through empty and outside ones."""
        height, width = picture_HW3.shape[:2]
        for box in truth:
            x0, y0, x1, y1 = np.array(box.xyxy) * scale
            inside = 0 <= x0 < x1 <= width + ROUNDING_PX and 0 <= y0 < y1 <= height + ROUNDING_PX
            corner = np.clip([x0, y0, x1, y1], -10, 2 * max(height, width)).round().astype(int).tolist()
            cv2.rectangle(picture_HW3, corner[:2], corner[2:], class_color(box.label), 2)
            if not inside:
                cv2.line(picture_HW3, corner[:2], corner[2:], CROSS, 2, cv2.LINE_AA)
                cv2.line(picture_HW3, corner[0::3], corner[2:0:-1], CROSS, 2, cv2.LINE_AA)

    def stored(self, truth: Boxes, picture: StoredPicture) -> Stored:
        y, x = picture.ratio
        scaled = [_scaled(box, x, y) for box in truth] if picture.ratio != (1.0, 1.0) else truth
        annotation = {
            "boxes_xyxy": [list(box.xyxy) for box in scaled],
            "labels": [box.label for box in scaled],
            "iscrowd": [int(box.crowd) for box in scaled],
            "area": [box.known_area for box in scaled],
        }
        columns = {"boxes_xyxy": [box.xyxy for box in scaled], "crowds": [box.crowd for box in scaled]}
        return Stored(
            annotation=annotation, labels=annotation["labels"], counts=[1] * len(scaled), columns=columns
        )

    def truth(self, annotation: Mapping[str, Any], target: bytes | None) -> TrueBoxes:
        boxes_xyxy = torch.tensor(annotation["boxes_xyxy"], dtype=torch.float64).reshape(-1, 4)
        return TrueBoxes(
            boxes_xywh_G4=box_convert(boxes_xyxy, "xyxy", "xywh").numpy(),
            labels_G=np.array(annotation["labels"], np.int64),
            crowds_G=np.array(annotation["iscrowd"], bool),
            areas_G=np.array(annotation["area"], np.float64),
        )

    def load(self, raw: RawSample, window: Window) -> dict[str, Tensor]:
        """A box stays when its centre lies in the window, clipped to it; crowds and slivers are dropped."""
        wanted = ~raw.columns["crowds"]
        boxes = raw.columns["boxes_xyxy"][wanted].astype(np.float64)
        boxes[:, 0::2] = (boxes[:, 0::2] - window.left) * (window.out_width / window.width)
        boxes[:, 1::2] = (boxes[:, 1::2] - window.top) * (window.out_height / window.height)
        labels = torch.from_numpy(raw.labels[wanted].copy())
        boxes, labels = keep_visible(torch.from_numpy(boxes).float(), labels, window.out)
        return {"boxes": boxes, "labels": labels}

    def random_targets(
        self, info: TaskInfo, images: int, size: tuple[int, int], generator: torch.Generator, objects: int
    ) -> BoxTargets:
        extent_2 = torch.tensor([size[1], size[0]])
        corner_N2 = torch.rand(images * objects, 2, generator=generator) * extent_2 / 2
        return BoxTargets(
            boxes_xyxy_N4=torch.cat([corner_N2, corner_N2 + extent_2 / 4], dim=1),
            labels_N=torch.randint(info.num_classes, (images * objects,), generator=generator),
            image_index_N=torch.arange(images).repeat_interleave(objects),
        )

    def collate(self, targets: Sequence[Mapping[str, Tensor]], sizes: Any, canvas: Any) -> BoxTargets:
        counts = torch.tensor([len(t["labels"]) for t in targets])
        return BoxTargets(
            boxes_xyxy_N4=torch.cat([t["boxes"].as_subclass(Tensor) for t in targets]),
            labels_N=torch.cat([t["labels"] for t in targets]),
            image_index_N=torch.repeat_interleave(torch.arange(len(targets)), counts),
        )

    def merged(self, source: SampleInfo, parts: Sequence[BoxPrediction]) -> BoxPrediction:
        return merged_boxes(source, parts)

    def mirrored(self, prediction: BoxPrediction) -> BoxPrediction:
        x0, y0, x1, y1 = prediction.boxes_xyxy_N4.unbind(1)
        width = prediction.sample.width
        return replace(prediction, boxes_xyxy_N4=torch.stack([width - x1, y0, width - x0, y1], 1))

    def fused(self, views: Sequence[BoxPrediction], fusion: str) -> BoxPrediction:
        return fused_boxes(views, fusion, MAX_BOXES)

    def metric(self, info: TaskInfo, protocol: Protocol) -> MeanAveragePrecision:
        return MeanAveragePrecision(info.class_names)

    def said(self, prediction: BoxPrediction) -> FoundBoxes:
        return _found(prediction)

    def review(self, info: TaskInfo) -> BoxReview:
        return BoxReview(info)

    def count(self, metric: MeanAveragePrecision, image: int, said: FoundBoxes, truth: TrueBoxes) -> None:
        metric.update(image, said, truth)

    def baselines(self, train: Any) -> dict[str, Callable[[SampleInfo], FoundBoxes]]:
        """No box at all."""
        return {"no_boxes": lambda sample: FoundBoxes()}

    def described(self, prediction: BoxPrediction, info: TaskInfo) -> dict[str, Any]:
        """Every box with its score, best first."""
        boxes = prediction.boxes_xyxy_N4.float().numpy()
        rows = zip(boxes, prediction.scores_N.float().numpy(), prediction.labels_N.tolist(), strict=True)
        return {
            "boxes": [
                {
                    "class": info.class_names[label],
                    "class_id": info.class_ids[label],
                    "score": _shortest(score),
                    "box_xyxy": [_shortest(value) for value in box],
                }
                for box, score, label in rows
            ]
        }

    def coco_results(self, prediction: BoxPrediction, info: TaskInfo) -> list[dict[str, Any]]:
        return self.entries(prediction, info)

    def entries(self, prediction: BoxPrediction, info: TaskInfo) -> list[dict[str, Any]]:
        said = self.said(prediction)
        rows = zip(said.boxes_xywh_N4, said.scores_N, said.labels_N.tolist(), strict=True)
        return [
            {
                "image_id": prediction.sample.order + 1,
                "category_id": info.class_ids[label],
                "bbox": [_shortest(value) for value in box],
                "score": _shortest(score),
            }
            for box, score, label in rows
        ]

    def answers(
        self, raw: Any, info: TaskInfo, file_names: Sequence[str], report: Callable[[str], None]
    ) -> list[FoundBoxes]:
        """Read detections, labels still category ids; an image may have none."""
        if not isinstance(raw, list):
            report(f"a JSON {type(raw).__name__}; write a list of detections")
            return []
        of_image: list[list[dict[str, Any]]] = [[] for _ in file_names]
        for position, item in enumerate(raw):
            problem = _entry_problem(item, file_names)
            if problem:
                report(f"entry {position}: {problem}")
            else:
                of_image[item["image_id"] - 1].append(item)
        return [_found_boxes(items) for items in of_image]

    def answered(self, answer: FoundBoxes, info: TaskInfo, truth: Any, protocol: Protocol) -> FoundBoxes:
        """Boxes of a category that the test set does not list get the label -1: COCO leaves them out."""
        labels = {number: label for label, number in enumerate(info.class_ids)}
        return replace(
            answer, labels_N=np.array([labels.get(n, -1) for n in answer.labels_N.tolist()], np.int64)
        )

    def draw(self, examples: Sequence[PredictionExample]) -> Iterator[tuple[Card, np.ndarray]]:
        """Boxes are drawn from `shown_from` on, else from the score of the best F1 over the examples."""
        score = best_score(_hits(e) for e in examples if e.truth is not None)
        for example in examples:
            yield _drawn(example, score if example.shown_from is None else example.shown_from)

    def overlay(self, example: PredictionExample) -> dict[str, Any]:
        example, names = _without_crowds(example), dict(enumerate(example.info.class_names))
        found = example.prediction
        layers = {
            "predictions": _overlay_boxes(found.boxes_xyxy_N4.tolist(), found.labels_N.tolist(), names, found)
        }
        if example.truth is not None:
            labels = example.truth.labels_G.tolist()
            layers["truth"] = _overlay_boxes(corners(example.truth).tolist(), labels, names)
        return {"boxes": layers}


def _checked_box(box: Box, height: int, width: int, example: Example, report: Reporter) -> Box | None:
    """Clip silently what rounding explains (1 px), but not in test, the truth of scores; report the rest."""
    x0, y0, x1, y1 = box.xyxy
    shown = f"box [x {x0:g}, y {y0:g}, width {x1 - x0:g}, height {y1 - y0:g}]"
    if not (x1 > x0 and y1 > y0):
        report.add("box", f"{example.where}: empty {shown}; {FIX_REMEDY}", example.image)
        return None
    clipped = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if max(abs(a - b) for a, b in zip(clipped, box.xyxy, strict=True)) > ROUNDING_PX:
        told = f"{example.where}: {shown} reaches outside its {width}x{height} image; {FIX_REMEDY}"
        report.add("box", told, example.image)
    elif report.split == "test":
        return box
    if not (clipped[2] > clipped[0] and clipped[3] > clipped[1]):
        return None
    return box if clipped == box.xyxy else replace(box, xyxy=clipped, area=None)


def _scaled(box: Box, x: float, y: float) -> Box:
    xyxy = tuple(v * s for v, s in zip(box.xyxy, (x, y, x, y), strict=True))
    return replace(box, xyxy=xyxy, area=None if box.area is None else box.area * x * y)


def _shortest(value: np.floating) -> float:
    """The shortest decimal that reads back as the same float32."""
    return float(str(value))


def _entry_problem(item: Any, file_names: Sequence[str]) -> str | None:
    if not isinstance(item, dict) or not {"image_id", "category_id", "bbox", "score"} <= item.keys():
        return f"{short(item)} is no detection; it needs image_id, category_id, bbox and score"
    image, box = item["image_id"], item["bbox"]
    if not is_int(image) or not 1 <= image <= len(file_names):
        return (
            f"image_id {short(image)} is no image; write the image's 1-based line in test.txt "
            f"(1..{len(file_names)}), not its COCO id"
        )
    where = f"image_id {image} ({file_names[image - 1]})"
    if not is_int(item["category_id"]):
        return f"{where} has category_id {short(item['category_id'])}; write a whole number"
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
        return f"{where} has bbox {short(box)}; write four numbers [x, y, width, height]"
    if not is_number(item["score"]):
        return f"{where} has score {short(item['score'])}; write a number"
    return None


def _found_boxes(items: list[dict[str, Any]]) -> FoundBoxes:
    return FoundBoxes(
        boxes_xywh_N4=np.array([item["bbox"] for item in items], np.float64).reshape(-1, 4),
        scores_N=np.array([item["score"] for item in items], np.float64),
        labels_N=np.array([item["category_id"] for item in items], np.int64),
    )


def _without_crowds(example: PredictionExample) -> PredictionExample:
    return example if example.truth is None else replace(example, truth=without_crowds(example.truth))


def _found(prediction: BoxPrediction) -> FoundBoxes:
    return FoundBoxes(
        boxes_xywh_N4=box_convert(prediction.boxes_xyxy_N4.float(), "xyxy", "xywh").numpy(),
        scores_N=prediction.scores_N.float().numpy(),
        labels_N=prediction.labels_N.numpy(),
    )


def _hits(example: PredictionExample) -> Hits:
    return match(_found(example.prediction), example.truth)


def _drawn(example: PredictionExample, min_score: float) -> tuple[Card, np.ndarray]:
    found, names, truth = example.prediction, example.info.class_names, _without_crowds(example).truth
    sure = found.scores_N.numpy() >= min_score
    boxes, labels = found.boxes_xyxy_N4.numpy()[sure], found.labels_N.numpy()[sure]
    scores = found.scores_N.numpy()[sure]
    true_boxes = np.zeros((0, 4)) if truth is None else corners(truth)
    height, width = example.image_HW3.shape[:2]
    left, top, right, bottom = 0, 0, width, height
    if example.long_side is None:
        left, top, right, bottom = focus(example.image_HW3, np.concatenate([boxes, true_boxes]))
    picture, scale = fit(example.image_HW3[top:bottom, left:right], example.long_side or LONG_SIDE)
    origin = np.array([left, top, left, top])
    texts = [f"{names[k]} {100 * s:.0f}%" for k, s in zip(labels, scores, strict=True)]
    picture = draw_boxes(picture, (boxes - origin) * scale, texts, labels, (true_boxes - origin) * scale)
    details = [f"boxes from {100 * min_score:.0f} %"]
    details += ["white dashes: truth"] if len(true_boxes) else []
    details += ["zoomed in"] if right - left < width else []
    legend = tuple((names[k], hex_color(class_color(k))) for k in sorted({int(k) for k in labels}))
    headline, good = f"{len(boxes)} found", None
    if truth is not None:
        hits, wrong = _hits(example).from_score(min_score)
        headline = f"{hits} of {len(true_boxes)} found" + (f", {wrong} wrong" if wrong else "")
        good = hits == len(true_boxes) and not wrong
    return example.card(headline, good=good, details=tuple(details), legend=legend), picture


def _overlay_boxes(
    boxes_xyxy: list[list[float]],
    labels: list[int],
    names: Mapping[int, str],
    found: BoxPrediction | None = None,
) -> dict[str, Any]:
    """Return boxes as `wandb.Image` takes them, in pixels of the stored image."""
    scores = [None] * len(labels) if found is None else found.scores_N.tolist()
    rows = []
    for (x0, y0, x1, y1), label, score in zip(boxes_xyxy, labels, scores, strict=True):
        row = {
            "position": {"minX": x0, "minY": y0, "maxX": x1, "maxY": y1},
            "domain": "pixel",
            "class_id": label,
            "box_caption": names[label] if score is None else f"{names[label]} {100 * score:.0f}%",
        }
        rows.append(row | ({} if score is None else {"scores": {"score": score}}))
    return {"box_data": rows, "class_labels": dict(names)}
