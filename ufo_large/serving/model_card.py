"""The README.md of a saved model, in the form that Hugging Face's hub shows, made from the run."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ufo_large.config import without_credentials
from ufo_large.models.multitask import MultitaskModel
from ufo_large.runs.folder import SavedRun
from ufo_large.tracking import read_environments
from ufo_large.tracking.results import Results, read_results

CARD = "README.md"
SHOWN_CLASSES = 40


def preprocessing_of(saved: SavedRun) -> dict[str, dict[str, Any]]:
    """Return how each task's pictures are prepared, for programs that do it themselves."""
    found = {}
    for info in saved.tasks:
        loader = saved.config.task(info).loader
        tiles = loader.tiles.for_task(info)
        found[info.name] = {
            "height": loader.image_size[0],
            "width": loader.image_size[1],
            "resize": "keep aspect, pad at the bottom and right" if loader.keep_aspect else "stretch",
            "interpolation": "linear, in two steps where it shrinks",
            "tiles": None if tiles is None else [tiles.rows, tiles.columns],
            "range": "RGB, 0 to 255; the network normalises",
        }
    return found


def card_of(
    model: MultitaskModel, saved: SavedRun, folder: Path, license: str, name: str, checkpoint: str = ""
) -> str:
    """Return the card. `folder`: of the run; what is not there (metrics, command) is left out.

    `checkpoint`: its name, where the weights are not the run's final ones, of which the metrics are.
    """
    tasks = ", ".join(info.name for info in saved.tasks)
    lines = [*_front_matter(saved, license), "", f"# {_cell(name)}", ""]
    lines += [f"One vision transformer for {tasks}, trained with UFO-Large.", "", *_usage(saved), ""]
    lines += ["## Tasks", "", *_tasks(saved), ""]
    if not checkpoint and (results := read_results(folder)):
        lines += ["## Results", "", *_results(results), ""]
    lines += ["## Training", "", *_training(model, saved, folder, checkpoint), ""]
    if license == "unknown":
        lines += ["## Licence", "", "Its author has stated none.", ""]
    return "\n".join(lines)


def _front_matter(saved: SavedRun, license: str) -> Iterator[str]:
    yield from ("---", "library_name: ufo-large", f"license: {json.dumps(license)}", "tags:")
    yield from (f"- {kind}" for kind in ["multi-task", *dict.fromkeys(info.kind for info in saved.tasks)])
    yield "---"


def _usage(saved: SavedRun) -> Iterator[str]:
    yield from ("```python", "from ufo_large import UFO", "")
    yield 'model = UFO.from_pretrained("FOLDER, or OWNER/NAME on the hub")'
    yield f'result = model.predict("picture.jpg", tasks=["{saved.tasks[0].name}"])'
    yield from ('result.save("overlay.jpg")', "```")


def _tasks(saved: SavedRun) -> Iterator[str]:
    prepared = preprocessing_of(saved)
    yield "| task | kind | input (height x width) | classes |"
    yield "|---|---|---|---|"
    for info in saved.tasks:
        own = prepared[info.name]
        shown = ", ".join(_cell(name) for name in info.class_names[:SHOWN_CLASSES])
        more = info.num_classes - SHOWN_CLASSES
        shown += f", and {more} more (config.json)" if more > 0 else ""
        size = f"{own['height']} x {own['width']}, {own['resize']}"
        classes = f"{info.num_classes}: {shown}" if info.class_names else "none"
        yield f"| {info.name} | {info.kind} | {size} | {classes} |"


def _results(results: Results) -> Iterator[str]:
    yield f"On the split {_code(results.split)} of the run's data, protocol {_code(results.protocol)}:"
    yield from ("", "| metric | value | what needs no training |", "|---|---|---|")
    for row in results.headline:
        beside = "; ".join(f"{_cell(name)} {value:.4f}" for name, value in row.baselines)
        yield f"| {_cell(row.label)} | {row.value:.4f} | {beside} |"


def _training(model: MultitaskModel, saved: SavedRun, folder: Path, checkpoint: str) -> Iterator[str]:
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
