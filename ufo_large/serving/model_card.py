"""The README.md of a saved model, in the form that Hugging Face's hub shows, made from the run."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ufo_large.config import without_credentials
from ufo_large.models.multitask import MultitaskModel
from ufo_large.runs.folder import SavedRun
from ufo_large.structures import TaskInfo
from ufo_large.tracking import read_environments
from ufo_large.tracking.results import Results, read_results

CARD = "README.md"
SHOWN_CLASSES = 40
HEADINGS = ("", "Tasks", "Results", "Training", "Licence")
NO_LICENSE = "Its author has stated none."


def preprocessing_of(saved: SavedRun) -> dict[str, dict[str, Any]]:
    """Return how each task's pictures are prepared, for programs that do it themselves."""
    return {info.name: preprocessing_of_task(saved, info) for info in saved.tasks}


def preprocessing_of_task(saved: SavedRun, info: TaskInfo) -> dict[str, Any]:
    """Return how the pictures of one task are prepared when it is evaluated."""
    loader = saved.config.task(info).loader
    tiles = loader.tiles.for_task(info)
    return {
        "height": loader.image_size[0],
        "width": loader.image_size[1],
        "resize": "keep aspect, pad at the bottom and right" if loader.keep_aspect else "stretch",
        "interpolation": "linear, in two steps where it shrinks",
        "tiles": None if tiles is None else [tiles.rows, tiles.columns],
        "range": "RGB, 0 to 255; the network normalises",
    }


def card_of(
    model: MultitaskModel, saved: SavedRun, folder: Path, license: str, name: str, checkpoint: str = ""
) -> str:
    """Return the card. `folder`: of the run; what is not there (metrics, command) is left out.

    `checkpoint`: its name, where the weights are not the run's final ones, of which the metrics are.
    """
    kinds = ["multi-task", *dict.fromkeys(info.kind for info in saved.tasks)]
    tasks = ", ".join(info.name for info in saved.tasks)
    about = [f"One vision transformer for {tasks}, trained with UFO-Large.", "", *_usage(saved)]
    table = task_lines(saved, saved.tasks)
    training = training_lines(model, saved, folder, checkpoint)
    results = None if checkpoint else read_results(folder)
    return joined("ufo-large", kinds, license, name, [about, table, result_lines(results), training])


def joined(library: str, tags: Sequence[str], license: str, name: str, parts: Sequence[Iterable[str]]) -> str:
    """Join the parts under their headings; one without lines is left out."""
    lines = ["---", f"library_name: {library}", f"license: {json.dumps(license)}", "tags:"]
    lines += [*(f"- {tag}" for tag in tags), "---", "", f"# {_cell(name)}", ""]
    parts = [*parts, [NO_LICENSE] if license == "unknown" else []]
    for heading, part in zip(HEADINGS, map(list, parts), strict=True):
        if part:
            lines += [f"## {heading}", ""] if heading else []
            lines += [*part, ""]
    return "\n".join(lines)


def with_license(card: str, license: str) -> str:
    """Return a card with another licence in the head that the hub reads."""
    card = re.sub(r"\A(---\n(?:(?!---).*\n)*?license: ).*", rf"\g<1>{json.dumps(license)}", card, count=1)
    return card.replace(f"## {HEADINGS[-1]}\n\n{NO_LICENSE}\n", "")


def _usage(saved: SavedRun) -> Iterator[str]:
    yield from ("```python", "from ufo_large import UFO", "")
    yield 'model = UFO.from_pretrained("FOLDER, or OWNER/NAME on the hub")'
    yield f'result = model.predict("picture.jpg", tasks=["{saved.tasks[0].name}"])'
    yield from ('result.save("overlay.jpg")', "```")


def task_lines(saved: SavedRun, tasks: Sequence[TaskInfo]) -> Iterator[str]:
    yield "| task | kind | input (height x width) | classes |"
    yield "|---|---|---|---|"
    for info in tasks:
        own = preprocessing_of_task(saved, info)
        shown = ", ".join(_cell(name) for name in info.class_names[:SHOWN_CLASSES])
        more = info.num_classes - SHOWN_CLASSES
        shown += f", and {more} more (config.json)" if more > 0 else ""
        size = f"{own['height']} x {own['width']}, {own['resize']}"
        classes = f"{info.num_classes}: {shown}" if info.class_names else "none"
        yield f"| {info.name} | {info.kind} | {size} | {classes} |"


def result_lines(results: Results | None) -> Iterator[str]:
    if results is None or not results.headline:
        return
    yield f"On the split {_code(results.split)} of the run's data, protocol {_code(results.protocol)}:"
    yield from ("", "| metric | value | what needs no training |", "|---|---|---|")
    for row in results.headline:
        beside = "; ".join(f"{_cell(name)} {value:.4f}" for name, value in row.baselines)
        yield f"| {_cell(row.label)} | {row.value:.4f} | {beside} |"


def training_lines(model: MultitaskModel, saved: SavedRun, folder: Path, checkpoint: str) -> Iterator[str]:
    config = saved.config
    count = sum(parameter.numel() for parameter in model.parameters())
    yield f"- recipe {_code(config.name)}, {config.steps} steps, seed {config.seed}"
    if checkpoint:
        yield f"- not the final weights: those of {_code(checkpoint)}"
    yield f"- trunk {_code(config.model.trunk.name)}, {count / 1e6:.1f} million parameters in all"
    yield f"- data: fingerprint `{saved.fingerprint[:16]}`"
    for run in read_environments(folder)[-1:]:
        yield f"- command: {_code(without_credentials(run['command']))}"
        versions = f"torch {_cell(str(run['versions']['torch']))}, commit {_cell(str(run['commit']['hash']))}"
        yield f"- {run['world_size']} rank(s), {versions}"


def _code(text: str) -> str:
    """Quote text as Markdown's code, which no backtick or line break in it can end."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if len(fence) > 1 else ""
    return f"{fence}{pad}{' '.join(text.split())}{pad}{fence}"


def _cell(name: str) -> str:
    """Keep a name from breaking the table, and from being read as HTML or Markdown."""
    return re.sub(r"([|\\`*_<\[])", r"\\\1", " ".join(name.split()))
