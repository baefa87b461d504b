"""Write a small traffic world in the contest's layout, with test ground truth: a data set for trying things.

Cars to classify (colour and shape together tell the class), signs to detect, streets to segment and, where
asked for, streets with depth; all from one renderer, so the tasks share their world. The same seed and sizes
give the same files. Depth, which the contest does not have, lies beside its folders in one of its own.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from ufo_large.config import parse_json, read_json
from ufo_large.data.progress import progress_bar
from ufo_large.data.scene_objects import CAR_CLASSES, CLASSES, SIGN_NAMES
from ufo_large.data.scenes import Scene, render_close_up, render_street
from ufo_large.data.shard_index import SPLITS
from ufo_large.data.weather import CLEAR, Weather
from ufo_large.data.world_sizes import CONTEST_TASKS, WorldSizes
from ufo_large.media.pictures import encode_jpeg, encode_mask

MARKER_FILE = "synthetic.json"
VERSION = 2
QUALITY = 92
FIRST_SIGN_ID = 1
UNITS_PER_METRE = 1000
MAX_METRES = 60.0
# what starts the random numbers of a task; no two tasks may paint the same pictures
STREAMS = {"cls": ord("c"), "dec": ord("d"), "seg": ord("s"), "depth": ord("m")}


def write_world(
    out: str | Path, seed: int = 0, sizes: WorldSizes | None = None, weather: Weather = CLEAR
) -> list[Path]:
    """Write OUT/track1_train_data, OUT/track1_test_data and, where asked for, OUT/depth; return them.

    Does nothing where the same world already lies. Raises ValueError where the folder holds anything else.
    """
    out, sizes = Path(out), sizes or WorldSizes()
    roots = [out / "track1_train_data", out / "track1_test_data"]
    if any(sizes.depth):
        roots.append(out / "depth")
    # through JSON, so that a marker read back compares equal
    marker = json.dumps({"version": VERSION, "seed": seed, "sizes": sizes.marked(), **weather.marked()})
    wanted = parse_json(marker, MARKER_FILE, "remove it")
    if _is_done(out, wanted):
        return roots
    (out / MARKER_FILE).write_text(json.dumps({**wanted, "done": False}), encoding="utf-8")
    with progress_bar() as bar:
        line = bar.add_task("painting", total=sum(map(sum, asdict(sizes).values())))
        for _ in _write_all(roots, seed, sizes, weather):
            bar.advance(line)
    (out / MARKER_FILE).write_text(json.dumps({**wanted, "done": True}), encoding="utf-8")
    return roots


def _is_done(out: Path, wanted: dict) -> bool:
    """True if this very world is there; makes the folder ready if not."""
    out.mkdir(parents=True, exist_ok=True)
    marker = out / MARKER_FILE
    if not marker.is_file():
        if any(out.iterdir()):
            raise ValueError(f"{out}: not empty; choose a new folder for --out")
        return False
    found = read_json(marker, "choose another --out or remove the folder")
    done = isinstance(found, dict) and found.pop("done", False)
    if found != wanted:
        raise ValueError(
            f"{out}: holds the world {found}, not {wanted}; choose another --out or remove the folder"
        )
    return done


def _write_all(roots: list[Path], seed: int, sizes: WorldSizes, weather: Weather) -> Iterator[None]:
    """Write task by task and split by split; yields after every image."""
    writers = {"cls": _write_cars, "dec": _write_signs, "seg": _write_streets, "depth": _write_depths}
    for task, writer in writers.items():
        for split_number, (split, count) in enumerate(zip(SPLITS, getattr(sizes, task), strict=True)):
            if count:
                streams = (
                    np.random.default_rng([VERSION, seed, STREAMS[task], split_number, i])
                    for i in range(count)
                )
                folder = roots[split == "test"] / task if task in CONTEST_TASKS else roots[-1]
                yield from writer(folder, split, enumerate(streams), weather)
    if sizes.dec[1] and sizes.dec[2]:
        categories = (roots[0] / "dec" / "val.json").read_bytes()
        (roots[1] / "dec" / "val.json").write_bytes(categories)


Streams = Iterable[tuple[int, np.random.Generator]]


def _write_cars(folder: Path, split: str, streams: Streams, weather: Weather) -> Iterator[None]:
    lines = []
    (folder / split).mkdir(parents=True, exist_ok=True)
    for i, rng in streams:
        label = i % len(CAR_CLASSES)
        height = int(rng.integers(88, 121))
        scene = render_close_up(height, round(height * rng.uniform(0.9, 1.1)), label, rng, weather)
        name = f"{i + 1:05d}.jpg"
        (folder / split / name).write_bytes(encode_jpeg(scene.rgb_HW3, QUALITY))
        lines.append(f"{name} {label}\n")
        yield
    (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    names = "".join(f"{color} {shape}\n" for color, shape in CAR_CLASSES)
    (folder / "classes.txt").write_text(names, encoding="utf-8")


def _street(rng: np.random.Generator, weather: Weather) -> Scene:
    height = int(rng.integers(128, 161))
    return render_street(height, round(height * 1.5), rng, weather)


def _write_signs(folder: Path, split: str, streams: Streams, weather: Weather) -> Iterator[None]:
    images, annotations = [], []
    (folder / split).mkdir(parents=True, exist_ok=True)
    for i, rng in streams:
        scene, name = _street(rng, weather), f"sign{i + 1:05d}.jpg"
        (folder / split / name).write_bytes(encode_jpeg(scene.rgb_HW3, QUALITY))
        # ids as users have them: sparse in train and val, line numbers in test
        image_id = i + 1 if split == "test" else 7 * i + 3
        height, width = scene.classes_HW.shape
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        annotations += [
            _annotation(len(annotations) + j, image_id, box, label, height, width)
            for j, (box, label) in enumerate(scene.signs, 1)
        ]
        yield
    categories = [{"id": FIRST_SIGN_ID + i, "name": name} for i, name in enumerate(SIGN_NAMES)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"{split}.json").write_text(json.dumps(coco), encoding="utf-8")
    if split == "test":
        (folder / "test.txt").write_text(
            "".join(f"{image['file_name']}\n" for image in images), encoding="utf-8"
        )


def _annotation(number: int, image_id: int, box, label: int, height: int, width: int) -> dict:
    x0, y0, x1, y1 = (round(float(v), 2) for v in np.clip(box, 0, (width, height, width, height)))
    size = round(x1 - x0, 2), round(y1 - y0, 2)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": FIRST_SIGN_ID + label,
        "bbox": [x0, y0, *size],
        "area": round(size[0] * size[1], 2),
        "iscrowd": 0,
    }


def _write_streets(folder: Path, split: str, streams: Streams, weather: Weather) -> Iterator[None]:
    yield from _write_pairs(
        folder, split, streams, weather, "street", "label", lambda scene: encode_mask(scene.classes_HW)
    )
    names = "".join(f"{value} {name}\n" for value, name in CLASSES.items())
    (folder / "classes.txt").write_text(names, encoding="utf-8")


def _write_depths(folder: Path, split: str, streams: Streams, weather: Weather) -> Iterator[None]:
    yield from _write_pairs(
        folder, split, streams, weather, "view", "depth", lambda scene: encode_depth(scene.depth_HW)
    )
    (folder / "depth.json").write_text(json.dumps({"units_per_metre": UNITS_PER_METRE}), encoding="utf-8")


def _write_pairs(
    folder: Path,
    split: str,
    streams: Streams,
    weather: Weather,
    stem: str,
    truth: str,
    encode: Callable[[Scene], bytes],
) -> Iterator[None]:
    """Write streets to images/SPLIT and their ground truth, as `encode` makes a PNG of it, to TRUTH/SPLIT."""
    for kind in ("images", truth):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    for i, rng in streams:
        scene, name = _street(rng, weather), f"{stem}{i + 1:05d}"
        (folder / "images" / split / f"{name}.jpg").write_bytes(encode_jpeg(scene.rgb_HW3, QUALITY))
        (folder / truth / split / f"{name}.png").write_bytes(encode(scene))
        yield


def encode_depth(depth_HW: np.ndarray) -> bytes:
    """Encode metres as a grey 16-bit PNG of UNITS_PER_METRE; 0, missing, where farther than MAX_METRES."""
    units_HW = np.rint(depth_HW * UNITS_PER_METRE)
    units_HW[units_HW > MAX_METRES * UNITS_PER_METRE] = 0
    done, png = cv2.imencode(".png", units_HW.astype(np.uint16))
    if not done:
        raise ValueError(f"cannot encode depth of shape {depth_HW.shape} as PNG")
    return png.tobytes()
