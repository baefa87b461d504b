"""What does it cost to hold each sample against its checksum? Our loader with and without, batch by batch.

    python benchmarks/checksums.py --data DIR [--pairs 60] [--write]

DIR is a train root in the contest's layout, and the files are those of benchmarks/loader.py. Both variants
load the same batches in turn, on one core and without workers, so that each pair meets the same state of the
machine; times are processor time per image.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import cv2
import loader as images_per_second
import torch

from ufo_large.data.loader import LoaderConfig
from ufo_large.data.shards import ShardSet
from ufo_large.data.transforms import ClassificationTransform, DetectionTransform
from ufo_large.structures import TaskBatch
from ufo_large.tracking.environment import commit_text, describe_environment

CASES = {
    "224 px crops": ("shards", "cls", (224, 224), 32),
    "224 px crops, shards of short side 256": ("small", "cls", (224, 224), 32),
    "1024 px with boxes": ("shards", "dec", (1024, 1024), 4),
}
TRANSFORMS = {
    "cls": ClassificationTransform.Config(scale=(images_per_second.MIN_AREA, 1.0), colour=0),
    "dec": DetectionTransform.Config(scale=(1.0, 1.0), focus=0, flip=0.5, colour=0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="train root in the contest's layout")
    parser.add_argument("--pairs", type=int, default=60, help="batches of each variant")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/checksums_*.md")
    options = parser.parse_args()
    if missing := images_per_second.missing_parts(options.data):
        parser.error(f"--data {options.data}: {missing}; give a train root in the contest's layout")
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory(prefix="ufo-checksums-") as folder:
        root = images_per_second.make_files(options.data, Path(folder))
        sizes = images_per_second.describe_files(root)
        rows = [row(name, *measure(root, *case, options.pairs)) for name, case in CASES.items()]
    text = render(rows, sizes)
    print(text)
    if options.write:
        name = f"checksums_{platform.machine()}_{date.today():%Y%m}.md"
        (images_per_second.RESULTS / name).write_text(text)


def batches(
    root: Path, folder: str, task: str, size: tuple[int, int], images: int, checked: bool
) -> Iterator[TaskBatch]:
    """Return the loader of one variant; without checksums the annotation is not read either."""
    shards = ShardSet.open(root / folder)
    reader = shards.split(task, "train")
    if not checked:
        reader._members = lambda i: (reader._member(i, "image"), b"", reader._member(i, "target"))
    config = LoaderConfig(micro_batch=images, image_size=size, transform=TRANSFORMS[task], workers=0)
    return config.build(reader, shards.task(task), 0, 1, 0, images_per_second.TOKENS)


def measure(
    root: Path, folder: str, task: str, size: tuple[int, int], images: int, pairs: int
) -> tuple[list[float], list[float]]:
    """Return the microseconds per image of each batch, with and without checksums."""
    with_and_without = [batches(root, folder, task, size, images, checked) for checked in (True, False)]
    for stream in with_and_without:
        next(stream)  # opens the files
    found: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            found[which].append(1e6 * seconds_of(with_and_without[which]) / images)
    return found


def seconds_of(stream: Iterator[TaskBatch]) -> float:
    start = time.process_time()
    next(stream)
    return time.process_time() - start


def row(name: str, checked: list[float], unchecked: list[float]) -> str:
    plain = statistics.median(unchecked)
    more = statistics.median(a - b for a, b in zip(checked, unchecked, strict=True))
    return f"| {name} | {plain:,.0f} | {more:,.0f} | {100 * more / plain:.1f} % |"


def render(rows: list[str], sizes: dict[str, str]) -> str:
    environment = describe_environment()
    lines = [
        "# Checksums of samples: what they add to loading",
        "",
        f"Hardware: {environment['hardware']}. Commit: {commit_text(environment['commit'])}. "
        f"Command: `{environment['command']}`.",
        f"Files: 224 px: {sizes['cls']}; 1024 px: {sizes['dec']}. Microseconds of processor time per image, "
        "medians; the difference is the median over pairs of equal batches.",
        "",
        "| | without | the checksum adds | share |",
        "|---|---|---|---|",
        *rows,
        "",
        "Workers load ahead, so a training step does not wait for this unless the cores are its bottleneck.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
