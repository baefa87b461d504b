"""A few pictures with targets that can be seen in the pixels, packed into shards for tests of the loader.

Detection: boxes filled with pure green on grey noise. Segmentation: class 1 is red, class 0 is not.
Classification: class k has the grey level 40 + 20 k. PNGs, so that values are exact.
"""

import json
from pathlib import Path

import cv2
import numpy as np

from ufo_large.data.sharding import ShardingOptions, make_shards

NUM_CLASSES = 4
GREEN, RED = (0, 200, 0), (200, 0, 0)


def write_tiny_data(root: Path, count: int = 12, seed: int = 0) -> Path:
    """Write `count` pictures a task, sides 40 to 120 px, in the contest's layout; returns the root."""
    rng = np.random.default_rng(seed)
    for folder in ("cls/train", "dec/train", "seg/images/train", "seg/label/train"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    _write_classification(root, count, rng)
    _write_detection(root, count, rng)
    _write_segmentation(root, count, rng)
    return root


def tiny_shards(folder: Path, count: int = 12, shard_megabytes: float = 0.02) -> Path:
    """Return a shard folder of tiny data in several shards a split."""
    data = write_tiny_data(folder / "train_data", count)
    make_shards([data], folder / "shards", ShardingOptions(shard_megabytes=shard_megabytes))
    return folder / "shards"


def _size(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(40, 121)), int(rng.integers(40, 121))


def _noise(rng: np.random.Generator) -> np.ndarray:
    return np.repeat(rng.integers(90, 110, (*_size(rng), 1), dtype=np.uint8), 3, axis=2)


def _save(path: Path, rgb: np.ndarray) -> None:
    cv2.imwrite(str(path), rgb[..., ::-1])


def _write_classification(root: Path, count: int, rng: np.random.Generator) -> None:
    lines = []
    for i in range(count):
        label = i % NUM_CLASSES
        _save(root / f"cls/train/{i:03d}.png", np.full((*_size(rng), 3), 40 + 20 * label, np.uint8))
        lines.append(f"{i:03d}.png {label}")
    (root / "cls/train.txt").write_text("\n".join(lines) + "\n")


def _write_detection(root: Path, count: int, rng: np.random.Generator) -> None:
    """Picture i has i % 4 boxes side by side; class 3 occurs only in the last picture with boxes."""
    images, annotations = [], []
    for i in range(count):
        picture = _noise(rng)
        height, width = picture.shape[:2]
        for j in range(i % 4):
            x, y = 4 + j * (width // 4), int(rng.integers(2, height - 14))
            w, h = int(rng.integers(4, width // 4 - 2)), int(rng.integers(4, 12))
            picture[y : y + h, x : x + w] = GREEN
            box = {"id": len(annotations) + 1, "image_id": 10 + i, "bbox": [x, y, w, h], "area": w * h}
            annotations.append({**box, "category_id": 1 + j % 3, "iscrowd": 0})
        _save(root / f"dec/train/{i:03d}.png", picture)
        images.append({"id": 10 + i, "file_name": f"{i:03d}.png", "height": height, "width": width})
    annotations[-1]["category_id"] = 4
    categories = [{"id": k + 1, "name": f"sign{k}"} for k in range(NUM_CLASSES)]
    body = {"images": images, "annotations": annotations, "categories": categories}
    (root / "dec/train.json").write_text(json.dumps(body))


def _write_segmentation(root: Path, count: int, rng: np.random.Generator) -> None:
    for i in range(count):
        picture = _noise(rng)
        height, width = picture.shape[:2]
        top, left = int(rng.integers(0, height // 2)), int(rng.integers(0, width // 2))
        mask = np.zeros((height, width), np.uint8)
        mask[top : top + height // 2, left : left + width // 2] = 1
        picture[mask == 1] = RED
        _save(root / f"seg/images/train/{i:03d}.png", picture)
        cv2.imwrite(str(root / f"seg/label/train/{i:03d}.png"), mask)
