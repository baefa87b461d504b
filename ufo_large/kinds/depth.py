"""Depth estimation: the distance of every pixel along the optical axis, in metres.

In a shard: `<key>.depth.png`, 16 bit grey, 0 = missing, and `{"units_per_metre": u}`: value / u is metres;
the index has one row per image with u and the measured pixels. The contest's submission has no form for it.

Legend: B images, H W height and width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from ufo_large.kinds.base import Column, Headline, Kind, Stored, StoredPicture
from ufo_large.kinds.cards import Card, PredictionExample
from ufo_large.kinds.masks import padded, window_of_map
from ufo_large.kinds.protocols import Protocol
from ufo_large.kinds.review import Mistake, Review
from ufo_large.media.decode import decode_png
from ufo_large.media.drawing import draw_depth, fit
from ufo_large.media.pictures import FileFacts, Look, mask_facts, mask_values
from ufo_large.metrics import DepthError
from ufo_large.structures import (
    FIX_REMEDY,
    BadSample,
    Example,
    RawSample,
    Reporter,
    SampleInfo,
    TaskInfo,
    Window,
)

OPACITY = 0.75
CLOSE = 1.25
CITYSCAPES_UNITS = 256
MAX_MAPS = 200
LARGEST = 2**16 - 1


@dataclass(slots=True)
class DepthTargets:
    """`depth_BHW`: float32 metres of the padded input; 0 where depth is missing, also in the padding."""

    depth_BHW: Tensor


@dataclass(slots=True)
class DepthPrediction:
    """`depth_HW`: float32 metres of every pixel of the stored image, on the CPU."""

    sample: SampleInfo
    depth_HW: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthFile:
    """The truth of a user's image: a 16-bit PNG of which value / `units_per_metre` is metres, 0 = missing.

    What is farther than `max_metres` counts as missing. `focal_baseline`: the file holds disparities as
    Cityscapes writes them, (value - 1) / 256 pixels, and depth is focal length (px) x baseline (m) over it.
    """

    path: Path
    units_per_metre: float
    max_metres: float | None = None
    focal_baseline: float | None = None

    def metres(self, values_HW: np.ndarray) -> np.ndarray:
        """Return float32 metres [H, W] of the file's values."""
        if self.focal_baseline is None:
            depth_HW = values_HW.astype(np.float32) / np.float32(self.units_per_metre)
        else:
            pixels_HW = (values_HW.astype(np.float32) - 1) / CITYSCAPES_UNITS
            near_HW = np.maximum(pixels_HW, 1 / CITYSCAPES_UNITS)
            depth_HW = np.where(pixels_HW > 0, np.float32(self.focal_baseline) / near_HW, 0)
        if self.max_metres is not None:
            depth_HW = np.where(depth_HW > self.max_metres, 0, depth_HW)
        return depth_HW.astype(np.float32)


class Depth(Kind):
    """Truth of a user's image: a `DepthFile`; of a stored one, and said: metres [H, W], 0 = missing.

    An image shown larger looks nearer, so views have one scale, and there are no tiles.
    """

    name = "depth"
    contest = ("dep", 0)
    headline = Headline(name="delta1", title="delta < 1.25", label="pixels within a factor of 1.25")
    columns = {"units_per_metre": Column(dtype=np.float32)}
    input_size = (504, 1022)
    target_suffix = "depth.png"
    fusions = ("mean",)
    any_scale = False
    empty = "no pixel of the true depth maps is measured; check them"

    def files(self, truth: DepthFile) -> list[tuple[Path, Look]]:
        return [(truth.path, mask_facts)]

    def checked(
        self, example: Example, facts: Mapping[Path, FileFacts], info: TaskInfo, report: Reporter
    ) -> Example | None:
        where, picture = example.truth.path, facts[example.image]
        depth = facts[where]
        problem = depth.error
        if not problem and (depth.height, depth.width) != (picture.height, picture.width):
            size = f"{picture.width}x{picture.height}"
            problem = f"{depth.width}x{depth.height}, but its picture {example.image.name} is {size}"
        if not problem and not any(depth.values):
            problem = "every pixel is 0, which means missing"
        if problem:
            report.add("depth", f"{where}: {problem}; replace the file, or {FIX_REMEDY}", where)
        return None if problem else example

    def inputs(self, truth: DepthFile, facts: Mapping[Path, FileFacts]) -> Any:
        rest = truth.units_per_metre, truth.max_metres, truth.focal_baseline
        return facts[truth.path].sha256, *rest

    def to_json(self, truth: DepthFile) -> dict[str, Any]:
        return {**asdict(truth), "path": str(truth.path.absolute())}

    def from_json(self, value: Mapping[str, Any]) -> DepthFile:
        return DepthFile(**{**value, "path": Path(value["path"])})

    def mark(self, picture_HW3: np.ndarray, truth: DepthFile, scale: float) -> None:
        """Lay the depth over the picture, near bright and far dark; what is missing stays plain."""
        depth_HW = truth.metres(mask_values(truth.path.read_bytes()))
        known = depth_HW[depth_HW > 0]
        near, far = np.percentile(known, (2, 98)) if known.size else (0, 1)
        size = picture_HW3.shape[:2]
        shown = draw_depth(depth_HW, size, float(near), float(far))
        measured_HW = cv2.resize(depth_HW, size[::-1], interpolation=cv2.INTER_NEAREST) > 0
        mixed = cv2.addWeighted(picture_HW3, 1 - OPACITY, shown, OPACITY, 0)
        picture_HW3[:] = np.where(measured_HW[..., None], mixed, picture_HW3)

    def stored(self, truth: DepthFile, picture: StoredPicture) -> Stored:
        values_HW = mask_values(truth.path.read_bytes())
        units = CITYSCAPES_UNITS if truth.focal_baseline else truth.units_per_metre
        scaled_HW = (truth.metres(values_HW) * np.float32(units)).round()
        scaled_HW = (
            np.where(scaled_HW > LARGEST, 0, scaled_HW).clip(0).astype(np.uint16)
        )  # too far is unknown
        if picture.size not in (None, scaled_HW.shape):
            scaled_HW = cv2.resize(scaled_HW, picture.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        return Stored(
            annotation={"units_per_metre": units},
            target=encode_depth(scaled_HW),
            labels=[0],
            counts=[int(np.count_nonzero(scaled_HW))],
            columns={"units_per_metre": [units]},
        )

    def truth(self, annotation: Mapping[str, Any], target: bytes) -> np.ndarray:
        return decode_depth(target).astype(np.float32) / np.float32(annotation["units_per_metre"])

    def load(self, raw: RawSample, window: Window) -> dict[str, Tensor]:
        values = window_of_map(raw, window, decode_depth, "depth map")
        return {"depth": tv_tensors.Mask(values.float() / float(raw.columns["units_per_metre"][0]))}

    def random_targets(
        self, info: TaskInfo, images: int, size: tuple[int, int], generator: torch.Generator, objects: int
    ) -> DepthTargets:
        return DepthTargets(depth_BHW=5 * torch.rand(images, *size, generator=generator))

    def collate(
        self, targets: Sequence[Mapping[str, Tensor]], sizes: Any, canvas: tuple[int, int]
    ) -> DepthTargets:
        return DepthTargets(depth_BHW=padded([t["depth"] for t in targets], canvas, 0.0))

    def mirrored(self, prediction: DepthPrediction) -> DepthPrediction:
        return replace(prediction, depth_HW=prediction.depth_HW.flip(-1))

    def fused(self, views: Sequence[DepthPrediction], fusion: str) -> DepthPrediction:
        """The mean of log depth, in which an error of 10 % weighs the same near and far."""
        logs = torch.stack([view.depth_HW.log() for view in views])
        return replace(views[0], depth_HW=logs.mean(0).exp())

    def metric(self, info: TaskInfo, protocol: Protocol) -> DepthError:
        return DepthError()

    def said(self, prediction: DepthPrediction) -> np.ndarray:
        return prediction.depth_HW.float().numpy()

    def review(self, info: TaskInfo) -> "DepthReview":
        return DepthReview(info)

    def count(self, metric: DepthError, image: int, said: np.ndarray, truth: np.ndarray) -> None:
        metric.update(image, said, truth)

    def baselines(self, train: Any) -> dict[str, Callable[[SampleInfo], np.ndarray]]:
        """Everywhere the median depth of training, of up to 200 evenly spread images."""
        rows = np.unique(np.linspace(0, len(train) - 1, min(len(train), MAX_MAPS)).round().astype(int))
        maps = [train.truth(row) for row in rows.tolist()]
        median = float(np.median([np.median(d[d > 0]) for d in maps if (d > 0).any()]))
        return {"median_depth": lambda s: np.full((s.height, s.width), median, np.float32)}

    def described(self, prediction: DepthPrediction, info: TaskInfo) -> dict[str, Any]:
        """Metres, and how many values of the encoded map make one."""
        near, median, far = (float(v) for v in np.percentile(self.said(prediction), (0, 50, 100)))
        return {"nearest": near, "median": median, "farthest": far, "units_per_metre": CITYSCAPES_UNITS}

    def encoded(self, prediction: DepthPrediction, info: TaskInfo) -> bytes:
        """A grey PNG of 16 bits, value / 256 is metres; farther than 255.99 m is stored as that."""
        values_HW = (self.said(prediction) * CITYSCAPES_UNITS).round().clip(1, LARGEST)
        return encode_depth(values_HW.astype(np.uint16))

    def draw(self, examples: Sequence[PredictionExample]) -> Iterator[tuple[Card, np.ndarray]]:
        for example in examples:
            yield _drawn(example)


class DepthReview(Review):
    """Keeps the share of known pixels that are off by more than a factor of `CLOSE`."""

    def seen(self, said: np.ndarray, truth: np.ndarray, confidence: float | None) -> float | None:
        return 1 - _share_close(said, truth) if (truth > 0).any() else None

    def mistakes(self, metric: DepthError) -> dict[int, Mistake]:
        return {image: Mistake(share) for image, share in self.images.items()}


def decode_depth(data: bytes) -> np.ndarray:
    """Return a stored depth map, uint16 [H, W]; raises BadSample when `data` is none."""
    depth = decode_png(data, "depth map")
    if depth is None or depth.ndim != 2 or depth.dtype != np.uint16:
        raise BadSample("unreadable depth map, wanted a PNG of one 16-bit channel")
    return depth


def encode_depth(values_HW: np.ndarray) -> bytes:
    """Encode uint16 values as a grey PNG of 16 bits."""
    done, png = cv2.imencode(".png", values_HW)
    if not done:
        raise ValueError(f"cannot encode a depth map of shape {values_HW.shape} as PNG")
    return png.tobytes()


def _share_close(said_HW: np.ndarray, truth_HW: np.ndarray) -> float:
    """Return the share of known pixels within a factor of `CLOSE` of the truth."""
    known_HW = truth_HW > 0
    ratio_N = said_HW[known_HW] / truth_HW[known_HW]
    return float((np.maximum(ratio_N, 1 / ratio_N) < CLOSE).mean())


def _drawn(example: PredictionExample) -> tuple[Card, np.ndarray]:
    """The picture, the prediction and, where known, the truth side by side; near is bright."""
    said, truth = example.prediction.depth_HW.numpy(), example.truth
    image, _ = fit(example.image_HW3, example.long_side or 320)
    known = said if truth is None or not (truth > 0).any() else truth[truth > 0]
    near, far = (float(v) for v in np.percentile(known, (2, 98)))
    maps = [said] if truth is None else [said, truth]
    gap = np.full((image.shape[0], 6, 3), 255, np.uint8)
    shown = [image, *(draw_depth(m, image.shape[:2], near, far) for m in maps)]
    picture = np.concatenate([part for one in shown for part in (gap, one)][1:], axis=1)
    headline = f"median {np.median(said):.1f} m"
    if truth is not None and (truth > 0).any():
        headline = f"{100 * _share_close(said, truth):.1f} % of pixels within a factor of {CLOSE}"
    order = "image, predicted" + ("" if truth is None else ", truth")
    scale = f"{order}; bright: {near:.1f} m, dark: {far:.1f} m"
    return example.card(headline, details=(scale,), wide=True), picture
