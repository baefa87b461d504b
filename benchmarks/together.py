"""What does one pass of all tasks save, whose shared blocks run once? Beside one pass per task.

    python benchmarks/together.py [--rounds 7] [--write]

Network and post-processing, without decoding: one batch of images that three tasks (linear, FCOS and dense
heads) see at one size. The two ways take turns, each round in the other order, and each is the median of
its rounds. Weights are random: the time does not depend on them, and the heads find few boxes. Both ways
must give the same bits.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date

import torch
import workload

from ufo_large.models import MultitaskModel, Trunk
from ufo_large.recipes import load_recipe
from ufo_large.routing import ROUTERS
from ufo_large.structures import Prediction, TaskBatch
from ufo_large.structures.batch import map_arrays
from ufo_large.testing.models import tiny_batch
from ufo_large.tracking.environment import commit_text, describe_environment

CASES = {
    "ViT-Ti/16, 224x224": (Trunk.Config(name="vit_tiny_patch16_224"), 224),
    "ViT-S/14 of `small`, 252x252": (load_recipe("small").model.trunk, 252),
}
IMAGES = 3


@dataclass(frozen=True, slots=True)
class Row:
    case: str
    router: str
    shared: int
    depth: int
    alone: float
    together: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/together_*.md")
    options = parser.parse_args()
    rows = []
    for row in measure(options.rounds):
        print(row, flush=True)
        rows.append(row)
    text = render(rows, options.rounds)
    print(text)
    if options.write:
        name = f"together_{platform.machine()}_{date.today():%Y%m}.md"
        (workload.RESULTS / name).write_text(text)


def measure(rounds: int) -> Iterator[Row]:
    for case, (trunk, side) in CASES.items():
        for name, router in ROUTERS.items():
            torch.manual_seed(0)
            config = workload.model_config(replace(trunk, router=router.Config()), pyramid_width=128)
            model = config.build(workload.TASKS).eval()
            alone, together = compare(model, side, rounds)
            yield Row(case, name, model.shared_blocks, model.trunk.depth, alone, together)


@torch.no_grad()
def compare(model: MultitaskModel, side: int, rounds: int) -> tuple[float, float]:
    """Return the median seconds of a pass per task, and of all in one. RuntimeError where a bit differs."""
    batch = replace(tiny_batch(workload.TASKS[0], IMAGES, side), targets=None)
    batches = [replace(batch, task=info.name) for info in workload.TASKS]
    ways = {
        "alone": lambda: [model.predict(one) for one in batches],
        "together": lambda: model.predict_together(batches),
    }
    require_same(batches, ways["alone"](), ways["together"]())  # warms both up, too
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in list(ways) if turn % 2 else list(ways)[::-1]:
            seconds[way].append(timed(ways[way]))
    return statistics.median(seconds["alone"]), statistics.median(seconds["together"])


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def require_same(batches: list[TaskBatch], *found: list[list[Prediction]]) -> None:
    for batch, alone, together in zip(batches, *found, strict=True):
        for a, b in zip(map(tensors, alone), map(tensors, together), strict=True):
            if not all(torch.equal(x, y) for x, y in zip(a, b, strict=True)):
                raise RuntimeError(f"task {batch.task}: the shared pass gives other bits")


def tensors(prediction: Prediction) -> list[torch.Tensor]:
    own: list[torch.Tensor] = []
    map_arrays(prediction, lambda tensor: own.append(tensor) or tensor)
    return own


def render(rows: list[Row], rounds: int) -> str:
    environment = describe_environment()
    lines = [
        "# All tasks in one pass: what sharing the first blocks saves",
        "",
        f"Commit: {commit_text(environment['commit'])}. Command: `python benchmarks/together.py "
        f"--rounds {rounds} --write`. {torch.get_num_threads()} thread(s), float32, {platform.machine()}.",
        f"Three tasks, {IMAGES} images in a batch, network and post-processing; medians of {rounds} rounds "
        "in which both ways take turns. All predictions are equal bit for bit.",
        "",
        "| trunk | router | shared blocks | a pass per task, s | all in one, s | ratio |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        ratio = row.alone / row.together
        seconds = f"{row.alone:.3f} | {row.together:.3f} | {ratio:.2f}"
        lines.append(f"| {row.case} | {row.router} | {row.shared} of {row.depth} | {seconds} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
