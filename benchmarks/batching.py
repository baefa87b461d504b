"""How much of a micro-step is waste? Padding and imbalance of our batch shapes beside naive batching.

    python benchmarks/batching.py --data DIR [--ranks 8] [--steps 2000] [--write] [--json]

Eight ranks are simulated; nothing is decoded. Sizes of images:

    cars   aspects of the classification photographs under DIR (contest layout), drawn to 8,144
    signs  aspects of the detection photographs under DIR, drawn to 6,103
    TT100K 6,103 images of 2048x2048
    BDD    7,000 images of 1280x720

Three ways to batch. "naive": random images, the long side scaled to the network's, padded to the largest of
the rank's batch. "square": the same on one fixed square canvas. "ours": aspect buckets, the same canvas on
every rank. Two more rows mix the tasks: "a task a rank" and "every rank every task at once" (naive sizes).

Padding is the share of tokens that show no image; tokens are 14 px. Balance is the mean work of the ranks
over the largest, which all wait for; work is linear and quadratic in tokens, as a ViT-g's.
"""

import argparse
import json
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image

from ufo_large.data.batching import AspectBuckets, BatchShape, Tokens
from ufo_large.data.sampler import SampleStream, Shuffle
from ufo_large.tracking.environment import commit_text, describe_environment

TOKENS = Tokens(patch=14, width=1408)
RESULTS = Path(__file__).parent / "results"
FULL = {
    "cars": BatchShape(32, (224, 224)),
    "signs": BatchShape(2, (1022, 1022)),
    "TT100K": BatchShape(2, (1022, 1022)),
    "BDD": BatchShape(4, (504, 896)),
}
COUNTS = {"cars": 8144, "signs": 6103, "TT100K": 6103, "BDD": 7000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="train root in the contest's layout")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/batching_*.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    report = measure(read_sizes(options.data), options.ranks, options.steps)
    text = render(report)
    print(text)
    if options.write:
        (RESULTS / f"batching_{platform.machine()}_{date.today():%Y%m}.md").write_text(text)
    if options.json:
        print(json.dumps(report))


def read_sizes(data: Path) -> dict[str, np.ndarray]:
    """Return (height, width) of every image by data set, int [n, 2]."""
    rng = np.random.default_rng(0)
    sizes = {"TT100K": np.full((1, 2), 2048), "BDD": np.array([[720, 1280]])}
    for name, folder in (("cars", "cls/train"), ("signs", "dec/train")):
        files = sorted((data / folder).glob("*.jpg"))
        if not files:
            raise SystemExit(
                f"{data / folder}: no .jpg files; give --data a train root in the contest's layout"
            )
        sizes[name] = np.array([Image.open(file).size[::-1] for file in files])
    return {name: sizes[name][rng.integers(0, len(sizes[name]), COUNTS[name])] for name in COUNTS}


Step = Callable[[int], tuple[np.ndarray, np.ndarray]]


def naive(sizes: np.ndarray, full: BatchShape, ranks: int) -> Step:
    """Return a step: each rank's work and the pixels shown and spent; canvases fit the largest image."""
    order = np.random.default_rng(1)

    def step(number: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = sizes[order.integers(0, len(sizes), (ranks, full.images))]
        factor = max(full.canvas) / chosen.max(-1, keepdims=True)
        shown = chosen * factor
        return spend(shown, np.ceil(shown.max(1) / TOKENS.patch) * TOKENS.patch)

    return step


def square(sizes: np.ndarray, full: BatchShape, ranks: int) -> Step:
    order = np.random.default_rng(1)

    def step(number: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = sizes[order.integers(0, len(sizes), (ranks, full.images))]
        factor = max(full.canvas) / chosen.max(-1, keepdims=True)
        return spend(chosen * factor, np.full((ranks, 2), max(full.canvas)))

    return step


def ours(sizes: np.ndarray, full: BatchShape, ranks: int) -> Step:
    """The training loader's own plan: its stream, its buckets."""
    shapes = AspectBuckets.Config().build(sizes[:, 0], sizes[:, 1], full, TOKENS)
    stream = SampleStream(Shuffle(len(sizes)), shapes.part_of, seed=0)
    position = stream.start()

    def step(number: int) -> tuple[np.ndarray, np.ndarray]:
        nonlocal position
        part = stream.next_part(position)
        shape = shapes.shape(part, number)
        draws, position = stream.take(position, part, shape.images * ranks)
        chosen = sizes[[draw.index for draw in draws]].reshape(ranks, shape.images, 2)
        factor = (np.array(shape.canvas) / chosen).min(-1, keepdims=True)
        return spend(chosen * factor, np.tile(shape.canvas, (ranks, 1)))

    return step


def spend(shown: np.ndarray, canvases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return work by rank, and (pixels shown, pixels spent). `shown` [R, B, 2], `canvases` [R, 2]."""
    images = shown.shape[1]
    work = np.array([images * TOKENS.work(tuple(canvas)) for canvas in canvases])
    return work, np.array([shown.prod(-1).sum(), images * canvases.prod(-1).sum()])


def run(step: Step, steps: int) -> dict[str, float]:
    balances, pixels = [], np.zeros(2)
    for number in range(steps):
        work, spent = step(number)
        balances.append(work.mean() / work.max())
        pixels += spent
    return {"balance": float(np.mean(balances)), "padding": float(1 - pixels[0] / pixels[1])}


def mixed(sizes: dict[str, np.ndarray], ranks: int, one_task: bool) -> Step:
    """Tasks side by side: rank r runs task r mod 3 alone, or every rank all three in the same micro-step."""
    tasks = ("cars", "TT100K", "BDD")
    steps = {task: naive(sizes[task], FULL[task], ranks) for task in tasks}

    def step(number: int) -> tuple[np.ndarray, np.ndarray]:
        results = [steps[task](number) for task in tasks]
        works = np.stack([work for work, _ in results])
        work = works[np.arange(ranks) % 3, np.arange(ranks)] if one_task else works.sum(0)
        return work, sum(pixels for _, pixels in results)

    return step


def measure(sizes: dict[str, np.ndarray], ranks: int, steps: int) -> dict:
    ways = {"naive": naive, "square": square, "ours": ours}
    tables = {
        name: {way: run(make(sizes[name], FULL[name], ranks), steps) for way, make in ways.items()}
        for name in COUNTS
    }
    tables["three tasks"] = {
        "a task a rank": run(mixed(sizes, ranks, True), steps),
        "every rank every task": run(mixed(sizes, ranks, False), steps),
    }
    return {"ranks": ranks, "steps": steps, "rates": tables, "environment": describe_environment()}


def render(report: dict) -> str:
    environment = report["environment"]
    lines = [
        f"# Batching: padding and balance over {report['ranks']} simulated ranks",
        "",
        f"Commit: {commit_text(environment['commit'])}. Command: `{environment['command']}`.",
        f"{report['steps']} micro-steps; cars and signs have the aspects of the photographs given, drawn to "
        "the size of the full data sets.",
        "",
        "| images | batching | balance | padding |",
        "|---|---|---|---|",
    ]
    for name, table in report["rates"].items():
        for way, row in table.items():
            lines.append(f"| {name} | {way} | {100 * row['balance']:.1f} % | {100 * row['padding']:.2f} % |")
    ours = [table["ours"] for table in report["rates"].values() if "ours" in table]
    worst = max(row["padding"] for row in ours)
    lines += ["", f"Ours, worst of all: balance {100 * min(row['balance'] for row in ours):.1f} %, "]
    lines[-1] += (
        f"padding {100 * worst:.2f} %. Without keep_aspect the images fill their canvas and padding is 0."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
