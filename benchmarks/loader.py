"""How many images a second does one core load? Ours beside PIL, torchvision v2 and plain webdataset.

    python benchmarks/loader.py --data DIR [--repeats 5] [--seconds 2] [--write] [--json]

DIR is a train root in the contest's layout. Its photographs, if small, are joined to montages of about
the size that users have (Stanford Cars about 700x480, street scenes 2048), so that detail a pixel is that
of photographs, and saved as JPEGs of quality 85. All rivals read the same files on one core, without
worker processes, and end with a batch of tensors; the first, as torchvision's reference training script, with
floats normalised on the CPU, the others with uint8:

    224 px    random resized crop (8 to 100 % of the area) and flip, batches of 32
    1024 px   resize to 1024x1024 and flip, boxes moved along, batches of 4

Rates are images per second of processor time, because wall time on a shared machine measures its other
users; the rivals take turns, and medians with (min, max) are shown. Further: ours from shards that were
written with a short side of 256 px, samples a second of the shard readers without decoding, and the share
of a training step spent waiting when a GPU takes a third of what a core loads.
"""

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import torch
import webdataset as wds
from PIL import Image
from torchvision import datasets, tv_tensors
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ufo_large.data.batching import Tokens
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.shard_writer import Transcode
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.shards import ShardSet
from ufo_large.data.transforms import ClassificationTransform, DetectionTransform
from ufo_large.tracking.environment import commit_text, describe_environment

QUALITY, MIN_AREA = 85, 0.08
TOKENS = Tokens(patch=14, width=1408)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESULTS = Path(__file__).parent / "results"
WIDE = (380, 280)
VIT_G_RATE = 346


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="train root in the contest's layout")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="processor time of one measurement")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/loader_*.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    if missing := missing_parts(options.data):
        parser.error(f"--data {options.data}: {missing}; give a train root in the contest's layout")
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory(prefix="ufo-loader-") as folder:
        root = make_files(options.data, Path(folder))
        report = measure(root, options.repeats, options.seconds)
    text = render(report)
    print(text)
    if options.write:
        name = f"loader_{platform.machine()}_{date.today():%Y%m}.md"
        (RESULTS / name).write_text(text)
    if options.json:
        print(json.dumps(report))


def missing_parts(data: Path) -> str:
    """Say what the rivals need and the folder does not have; "" where all is there."""
    if not any((data / "cls/train").glob("*.jpg")):
        return "no .jpg files in cls/train"
    if not (data / "dec/train.json").is_file():
        return "no dec/train.json"
    return "" if wide_pictures(data) else f"dec/train.json has no picture of {WIDE[0]}x{WIDE[1]} or more"


def wide_pictures(data: Path) -> list[dict]:
    """Return the detection photographs that are large enough for a part of a montage."""
    images = json.loads((data / "dec/train.json").read_text())["images"]
    return [image for image in images if image["width"] >= WIDE[0] and image["height"] >= WIDE[1]]


def make_files(data: Path, folder: Path) -> Path:
    """Write the montages in the contest's layout, pack them into shards, return the folder of both."""
    root = folder / "train_data"
    write_cars(data, root)
    write_signs(data, root)
    make_shards([root], folder / "shards", ShardingOptions(transcode=Transcode(seekable=True)))
    make_shards([root], folder / "as_they_are", ShardingOptions())
    make_shards([root], folder / "small", ShardingOptions(transcode=Transcode(short_side=256, seekable=True)))
    return folder


def read_rgb(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1]


def save(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def montage(pictures: list[np.ndarray], columns: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Join pictures cropped to the smallest of them; returns the montage and each one's (top, left)."""
    height, width = min(p.shape[0] for p in pictures), min(p.shape[1] for p in pictures)
    corners = [(i // columns * height, i % columns * width) for i in range(len(pictures))]
    rows = [
        np.concatenate([p[:height, :width] for p in pictures[i : i + columns]], axis=1)
        for i in range(0, len(pictures), columns)
    ]
    return np.concatenate(rows), corners


def write_cars(data: Path, root: Path, count: int = 160) -> None:
    """Montages of 3x5 classification photographs, once as the contest has them and once a folder a class."""
    found = sorted((data / "cls/train").glob("*.jpg"))
    files = [file for file in found if Image.open(file).width >= 240] or found
    lines = []
    for i in range(count):
        picture, _ = montage([read_rgb(files[(15 * i + j) % len(files)]) for j in range(15)], 3)
        save(root / f"cls/train/{i:04d}.jpg", picture)
        lines.append(f"{i:04d}.jpg {i % 8}")
        target = root.parent / f"folders/{i % 8}/{i:04d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / f"cls/train/{i:04d}.jpg", target)
    (root / "cls/train.txt").write_text("\n".join(lines) + "\n")


def write_signs(data: Path, root: Path, count: int = 40) -> None:
    """Montages of 4x4 detection photographs with the boxes of all parts."""
    coco = json.loads((data / "dec/train.json").read_text())
    boxes_of = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        boxes_of[annotation["image_id"]].append(annotation)
    wide = wide_pictures(data)
    images, annotations = [], []
    for i in range(count):
        parts = [wide[(16 * i + j) % len(wide)] for j in range(16)]
        picture, corners = montage([read_rgb(data / "dec/train" / p["file_name"]) for p in parts], 4)
        part_height, part_width = picture.shape[0] // 4, picture.shape[1] // 4
        for part, (top, left) in zip(parts, corners, strict=True):
            for a in boxes_of[part["id"]]:
                x, y, w, h = a["bbox"]
                if x + w <= part_width and y + h <= part_height:
                    body = {"id": len(annotations) + 1, "image_id": i, "iscrowd": 0, "area": w * h}
                    box = [x + left, y + top, w, h]
                    annotations.append({**body, "bbox": box, "category_id": a["category_id"]})
        name = f"{i:04d}.jpg"
        save(root / "dec/train" / name, picture)
        images.append({"id": i, "file_name": name, "height": picture.shape[0], "width": picture.shape[1]})
    body = {"images": images, "annotations": annotations, "categories": coco["categories"]}
    (root / "dec/train.json").write_text(json.dumps(body))


Batches = Callable[[], Iterator[int]]


def stacked(items: Iterator[torch.Tensor], size: int) -> Iterator[int]:
    """Stack items to batches and yield how many images each has."""
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield torch.stack(batch).shape[0]
            batch = []


def endless(dataset) -> Iterator:
    while True:
        for i in torch.randperm(len(dataset)).tolist():
            yield dataset[i]


def rivals_224(root: Path) -> dict[str, Batches]:
    size, scale = (224, 224), (MIN_AREA, 1.0)
    on_pil = v2.Compose([v2.RandomResizedCrop(size, scale), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    reference = v2.Compose([on_pil, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    on_tensor = v2.Compose([v2.RandomResizedCrop(size, scale), v2.RandomHorizontalFlip()])
    floats = datasets.ImageFolder(root / "folders", reference)
    folder = datasets.ImageFolder(root / "folders", on_pil)
    tensors = datasets.ImageFolder(root / "folders", on_tensor, loader=tensor_of)
    config = ClassificationTransform.Config(scale=scale, colour=0)

    def ours(folder_name: str) -> Iterator[int]:
        shards = ShardSet.open(root / folder_name)
        loader = LoaderConfig(micro_batch=32, image_size=size, transform=config, workers=0)
        for batch in loader.build(shards.split("cls", "train"), shards.task("cls"), 0, 1, 0, TOKENS):
            yield len(batch)

    return {
        "ImageFolder + PIL": lambda: stacked((x for x, _ in endless(floats)), 32),
        "ImageFolder + PIL, uint8": lambda: stacked((x for x, _ in endless(folder)), 32),
        "torchvision v2 on tensors": lambda: stacked((x for x, _ in endless(tensors)), 32),
        "webdataset + PIL": lambda: stacked((on_pil(s["jpg"]) for s in web(root, "cls")), 32),
        "webdataset + torchvision v2": lambda: stacked(
            (on_tensor(tensor_from(s["jpg"])) for s in web(root, "cls", decode=False)), 32
        ),
        "ours": lambda: ours("shards"),
        "ours, files without restart markers": lambda: ours("as_they_are"),
        "ours, shards of short side 256": lambda: ours("small"),
    }


def tensor_of(path: str) -> torch.Tensor:
    return decode_image(read_file(path), mode=ImageReadMode.RGB)


def tensor_from(data: bytes) -> torch.Tensor:
    return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)


def web(root: Path, task: str, decode: bool = True) -> Iterator[dict]:
    shards = [str(path) for path in sorted((root / "shards" / task).glob("train-*.tar"))]
    dataset = wds.WebDataset(shards, shardshuffle=False).shuffle(100)
    while True:
        yield from dataset.decode("pil") if decode else dataset


def rivals_1024(root: Path) -> dict[str, Batches]:
    size = (1024, 1024)
    coco = json.loads((root / "train_data/dec/train.json").read_text())
    shards = ShardSet.open(root / "shards")
    reader = shards.split("dec", "train")
    files = {f"{i:04d}": root / f"train_data/dec/train/{i:04d}.jpg" for i in range(len(coco["images"]))}
    samples = [(path, boxes_of(coco, int(key))) for key, path in files.items()]
    flip_and_resize = v2.Compose([v2.Resize(size), v2.RandomHorizontalFlip()])
    config = DetectionTransform.Config(scale=(1.0, 1.0), focus=0, flip=0.5, colour=0)

    def with_pil() -> Iterator[torch.Tensor]:
        for path, boxes in endless(samples):
            image, _ = flip_and_resize(Image.open(path).convert("RGB"), boxes)
            yield F.pil_to_tensor(image)

    def with_tensors() -> Iterator[torch.Tensor]:
        for path, boxes in endless(samples):
            yield flip_and_resize(tv_tensors.Image(tensor_of(str(path))), boxes)[0]

    def with_web() -> Iterator[torch.Tensor]:
        for sample in web(root, "dec", decode=False):
            boxes = json.loads(sample["json"])["boxes_xyxy"]
            image = tv_tensors.Image(tensor_from(sample["jpg"]))
            yield flip_and_resize(image, as_boxes(boxes, image.shape[-2:]))[0]

    def ours() -> Iterator[int]:
        loader = LoaderConfig(micro_batch=4, image_size=size, transform=config, workers=0)
        for batch in loader.build(reader, shards.task("dec"), 0, 1, 0, TOKENS):
            yield len(batch)

    return {
        "PIL": lambda: stacked(with_pil(), 4),
        "torchvision v2 on tensors": lambda: stacked(with_tensors(), 4),
        "webdataset + torchvision v2": lambda: stacked(with_web(), 4),
        "ours": ours,
    }


def as_boxes(boxes: list, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    data = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return tv_tensors.BoundingBoxes(data, format="XYXY", canvas_size=tuple(size))


def boxes_of(coco: dict, image_id: int) -> tv_tensors.BoundingBoxes:
    image = next(image for image in coco["images"] if image["id"] == image_id)
    found = [a["bbox"] for a in coco["annotations"] if a["image_id"] == image_id]
    return as_boxes([[x, y, x + w, y + h] for x, y, w, h in found], (image["height"], image["width"]))


def readers(root: Path) -> dict[str, Batches]:
    """Samples of short side 256 without decoding: ours at random, webdataset in file order."""
    reader = ShardSet.open(root / "small").split("cls", "train")

    def ours() -> Iterator[int]:
        rng = np.random.default_rng(0)
        while True:
            for index in rng.permutation(len(reader)).tolist():
                reader.read(index)
            yield len(reader)

    def webdataset() -> Iterator[int]:
        shards = [str(path) for path in sorted((root / "small/cls").glob("train-*.tar"))]
        while True:
            yield sum(1 for _ in wds.WebDataset(shards, shardshuffle=False))

    return {"webdataset, in order": webdataset, "ours, at random": ours}


def rates(rivals: dict[str, Batches], repeats: int, seconds: float) -> dict[str, list[float]]:
    """Measure the rivals in turns; the first batch of each turn is warm-up."""
    found: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(repeats):
        for name, make in rivals.items():
            batches = make()
            next(batches)
            count, start = 0, time.process_time()
            while (spent := time.process_time() - start) < seconds:
                count += next(batches)
            found[name].append(count / spent)
    return found


def waiting(root: Path, task: str, images_per_s: float, seconds: float) -> dict[str, float]:
    """Return the share of wall time spent waiting when two workers feed a GPU that takes `images_per_s`."""
    shards = ShardSet.open(root / "shards")
    transform, size, micro_batch = {
        "cls": (ClassificationTransform.Config(scale=(MIN_AREA, 1.0), colour=0), (224, 224), 32),
        "dec": (DetectionTransform.Config(scale=(1.0, 1.0), focus=0, flip=0.5, colour=0), (1024, 1024), 4),
    }[task]
    config = LoaderConfig(micro_batch=micro_batch, image_size=size, transform=transform, workers=2)
    loader = config.build(shards.split(task, "train"), shards.task(task), 0, 1, 0, TOKENS)
    for _ in range(4):
        next(loader)
    waited, start = loader.wait_s, time.perf_counter()
    while time.perf_counter() - start < seconds:
        time.sleep(micro_batch / images_per_s)
        next(loader)
    share = (loader.wait_s - waited) / (time.perf_counter() - start)
    loader.close()
    return {"images_per_s": images_per_s, "share": share}


def measure(root: Path, repeats: int, seconds: float) -> dict:
    tables = {
        "224 px": rates(rivals_224(root), repeats, seconds),
        "1024 px with boxes": rates(rivals_1024(root), repeats, seconds),
        "reader without decoding, short side 256": rates(readers(root), repeats, seconds / 2),
    }
    ours = {"cls": "224 px", "dec": "1024 px with boxes"}
    takes = {task: statistics.median(tables[table]["ours"]) / 3 for task, table in ours.items()}
    return {
        "files": describe_files(root),
        "rates": tables,
        "ratios": {name: ratios(table) for name, table in tables.items()},
        "waiting": {task: waiting(root, task, rate, 5 * seconds) for task, rate in takes.items()},
        "environment": describe_environment(),
    }


def ratios(table: dict[str, list[float]]) -> dict[str, float]:
    """Return ours over the first rival and over the best one."""
    medians = {name: statistics.median(values) for name, values in table.items()}
    ours = next(rate for name, rate in medians.items() if name.startswith("ours"))
    others = [rate for name, rate in medians.items() if not name.startswith("ours")]
    return {"over_first": ours / others[0], "over_best": ours / max(others)}


def describe_files(root: Path) -> dict[str, str]:
    found = {}
    for task in ("cls", "dec"):
        files = sorted((root / f"train_data/{task}/train").glob("*.jpg"))
        sizes = [Image.open(file).size for file in files]
        width, height = (int(statistics.median(side)) for side in zip(*sizes, strict=True))
        kilobytes = statistics.median(file.stat().st_size for file in files) / 1000
        found[task] = f"{len(files)} JPEGs, median {width}x{height}, {kilobytes:.0f} kB"
    return found


def render(report: dict) -> str:
    environment = report["environment"]
    hardware, versions = environment["hardware"], environment["versions"]
    packages = ("torch", "torchvision", "webdataset", "opencv-python-headless")
    lines = [
        "# Loader: images a second of one core",
        "",
        f"Hardware: {hardware}. Versions: " + ", ".join(f"{p} {versions.get(p)}" for p in packages) + ".",
        f"Commit: {commit_text(environment['commit'])}. Command: `{environment['command']}`.",
        f"Files: 224 px: {report['files']['cls']}; 1024 px: {report['files']['dec']}. Rates per second of "
        "processor time on one core, median (min, max); the first batch of every turn is not counted.",
    ]
    for name, table in report["rates"].items():
        ratio = report["ratios"][name]
        lines += ["", f"## {name}", "", "| | a second |", "|---|---|"]
        for rival, values in table.items():
            middle = statistics.median(values)
            lines.append(f"| {rival} | {middle:,.0f} ({min(values):,.0f}, {max(values):,.0f}) |")
        lines.append("")
        lines.append(f"Ours: {ratio['over_first']:.2f}x the first, {ratio['over_best']:.2f}x the best other.")
    lines += [
        "",
        "## Waiting for data, two worker processes, a GPU that takes a third of what a core loads",
        "",
    ]
    for task, row in report["waiting"].items():
        lines.append(
            f"- {task} at {row['images_per_s']:.0f} images/s: {100 * row['share']:.2f} % of the time"
        )
    cores = VIT_G_RATE / statistics.median(report["rates"]["224 px"]["ours"])
    lines += [
        "",
        f"A GPU that trains ViT-g at {VIT_G_RATE} images/s of 224 px keeps {cores:.1f} such cores busy.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
