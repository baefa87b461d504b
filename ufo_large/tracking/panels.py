"""Which charts a run's log is worth: one list of panels, drawn by the report and rebuilt in wandb."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ufo_large.kinds import KINDS
from ufo_large.tracking.curves import task_names

MAX_LINES = 10
SHARES = {
    "train/data_wait_share": "waiting for data",
    "train/network_wait_share": "waiting for the network",
    "train/host_wait_share": "waiting for the host",
    "train/host_share": "the rest",
}
PATH = "path/"
"""Begins what a router says of one bank, `routing/<task>/path/<bank>/<expert>`; a table shows it."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: the keys of the log it shows, and the name of each in the legend.

    `x_name`: what lies along the other axis; `x_share`: not steps but shares, 0 to 1. `begins_row`: the next
    one belongs beside it.
    """

    title: str
    keys: tuple[str, ...]
    names: tuple[str, ...]
    note: str = ""
    scale: Literal["auto", "linear"] = "auto"
    limits: tuple[float | None, float | None] = (None, None)
    percent: bool = False
    x_name: str = "step"
    x_share: bool = False
    begins_row: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Charts that belong together; `text` tells a newcomer how to read them."""

    title: str
    text: str
    panels: tuple[Panel, ...]


def sections(keys: Iterable[str]) -> list[Section]:
    """Sort the keys of a log into sections; a section without keys is left out."""
    keys = list(dict.fromkeys(keys))
    tasks = task_names(keys)
    found = [
        Section(
            "Losses",
            "Each task's loss and its parts, averaged over ranks, and beside it the task's headline metric "
            "in validation.",
            _losses(keys, tasks),
        ),
        Section(
            "Validation",
            "Metrics measured while training, on val or the split that evaluate_split names.",
            _validation(keys),
        ),
        Section(
            "Balance",
            "How the gradients of the tasks meet on the shared trunk. A cosine below zero means that two "
            "tasks pull in opposite directions; the share says whose gradient moved the trunk.",
            _balance(keys, tasks) if len(tasks) > 1 else (),
        ),
        Section("Routing", "Which path the tokens of each task take through the experts.", _routing(keys)),
        Section("Training", "Speed and the optimizer.", _training(keys)),
    ]
    return [section for section in found if section.panels]


def _losses(keys: Sequence[str], tasks: Sequence[str]) -> tuple[Panel, ...]:
    panels = []
    for task in tasks:
        parts = [k for k in keys if k.startswith(f"{task}/") and k != f"{task}/total"]
        own = [f"{task}/total", *parts] if len(parts) != 1 else [f"{task}/total"]
        beside = [
            _panel(f"{kind.headline.label} of {task} in validation", [key], lambda k: k.removeprefix("val/"))
            for kind in KINDS.values()
            if (key := f"val/{task}/{kind.headline.name}") in keys
        ]
        name = lambda k: k.split("/", 1)[1].replace("_", " ")
        panels += [_panel(f"Loss of {task}", own, name, begins_row=bool(beside)), *beside]
    return tuple(panels)


def _validation(keys: Sequence[str]) -> tuple[Panel, ...]:
    found = [k for k in keys if k.startswith("val/")]
    headline = [k for k in found if k.rsplit("/", 1)[-1] in headlines()]
    others = [k for k in found if k not in headline and not is_per_class(k)]
    panels = {"Headline metrics": headline, "Other metrics": others}
    name = lambda k: k.removeprefix("val/").replace("_", " ")
    return tuple(_panel(title, own, name) for title, own in panels.items() if own)


def is_per_class(key: str) -> bool:
    """Tell whether a metric key is of one class, such as `<task>/top1/<class>`."""
    return any(f"/{metric}/" in key for kind in KINDS.values() for metric in kind.class_metrics)


def headlines() -> tuple[str, ...]:
    """Return the headline metrics of all kinds, and the score."""
    return (*(kind.headline.name for kind in KINDS.values()), "score")


def _balance(keys: Sequence[str], tasks: Sequence[str]) -> tuple[Panel, ...]:
    def per_task(quantity: str, title: str, **options) -> Panel | None:
        own = [f"balance/{t}/{quantity}" for t in tasks if f"balance/{t}/{quantity}" in keys]
        return _panel(title, own, lambda k: k.split("/")[1], **options) if own else None

    cosines = [k for k in keys if k.startswith("balance/cosine/")]
    panels = [
        per_task("weight", "Task weight"),
        per_task("grad_norm", "Trunk gradient norm before balancing"),
        per_task("grad_norm_after", "Trunk gradient norm after balancing"),
        per_task("share", "Share of the update", scale="linear", percent=True),
    ]
    if cosines:
        name = lambda k: k.removeprefix("balance/cosine/")
        title = "Cosine between task gradients"
        panels.append(_panel(title, cosines, name, scale="linear", limits=(-1.0, 1.0)))
    if "balance/conflict_rate" in keys:
        options = {"scale": "linear", "limits": (0.0, 1.0), "percent": True}
        name = lambda k: "pairs in conflict"
        panels.append(_panel("Conflict rate", ["balance/conflict_rate"], name, **options))
    return tuple(p for p in panels if p is not None)


def _routing(keys: Sequence[str]) -> tuple[Panel, ...]:
    """One chart a statistic with a line a task; where it exists per block, one a task with the blocks."""
    families: dict[str, list[tuple[str, str, str]]] = {}
    for key in keys:
        parts = key.split("/", 2)
        if parts[0] == "routing" and len(parts) == 3 and not parts[2].startswith(PATH):
            family = re.sub(r"\d+", "#", parts[2])
            families.setdefault(family, []).append((key, parts[1], parts[2]))
    panels = []
    for family, members in families.items():
        if "#" not in family:
            tasks = {key: task for key, task, _ in members}
            panels.append(_panel(_title(family), list(tasks), tasks.get, scale="linear"))
            continue
        for task in dict.fromkeys(t for _, t, _ in members):
            names = {key: _numbered(name) for key, t, name in members if t == task}
            title = f"{_title(family)}, {task}"
            panels.append(_panel(title, list(names), names.get, scale="linear"))
    return tuple(panels)


def _training(keys: Sequence[str]) -> tuple[Panel, ...]:
    known = {
        "train/images_per_second": ("Images per second", {}),
        "train/tokens_per_second": ("Tokens per second", {}),
        "train/mfu": ("MFU of the whole step", {"percent": True, "scale": "linear"}),
        "train/tflops": ("TFLOP/s of a rank in the whole step", {}),
        "train/step_seconds": ("Seconds per step", {}),
        "train/lr": ("Learning rate", {"scale": "linear"}),
        "train/grad_norm": ("Gradient norm before clipping", {}),
        "train/peak_memory_gib": ("Peak GPU memory of the first rank, GiB", {"scale": "linear"}),
        "train/peak_reserved_gib": ("Peak GPU memory reserved by torch, GiB", {"scale": "linear"}),
    }
    panels = [_panel(title, [k], _last_part, **o) for k, (title, o) in known.items() if k in keys]
    shares = [k for k in SHARES if k in keys]
    if shares:
        options = {"percent": True, "scale": "linear", "limits": (0.0, 1.0)}
        panels.append(_panel("Where the step's time goes", shares, SHARES.get, **options))
    per_task = {
        "task_seconds": "Seconds of each task in a step",
        "mfu": "MFU of each task",
        "tflops": "TFLOP/s of a rank in each task",
        "tokens_per_second": "Tokens per second of each task",
        "images_per_second": "Images per second of each task",
        "epoch": "Epochs seen",
        "bad_samples": "Unreadable samples replaced",
    }
    by_task = {n: [k for k in keys if k.startswith(f"train/{n}/")] for n in per_task}
    for name, own in by_task.items():
        if own:
            options = {"scale": "linear", "limits": (0.0, None), "percent": name == "mfu"}
            panels.append(_panel(per_task[name], own, _last_part, **options))
    drawn = [*known, *shares, *sum(by_task.values(), [])]
    others = [k for k in keys if k.startswith("train/") and k not in drawn]
    panels += [_panel(_title(k.removeprefix("train/")), [k], _last_part) for k in others]
    return tuple(panels)


def _panel(title: str, keys: Sequence[str], name, **options) -> Panel:
    """Make a panel; of too many keys every n-th is kept, the first and last among them."""
    note = ""
    if len(keys) > MAX_LINES:
        chosen = [round(i * (len(keys) - 1) / (MAX_LINES - 1)) for i in range(MAX_LINES)]
        note = f"{MAX_LINES} of {len(keys)} lines shown."
        keys = [keys[i] for i in chosen]
    return Panel(title, tuple(keys), tuple(name(k) for k in keys), note=note, **options)


def _numbered(name: str) -> str:
    """Return the parts of a name that carry a number: "block 3" of "block3/own_share"."""
    parts = [p for p in name.split("/") if re.search(r"\d", p)]
    return re.sub(r"(?<=[a-z])(?=\d)", " ", " ".join(parts).replace("_", " "))


def _last_part(key: str) -> str:
    return key.rsplit("/", 1)[-1].replace("_", " ")


def _title(text: str) -> str:
    words = text.replace("#", "").replace("/", " ").replace("_", " ").split()
    return " ".join(words).capitalize()
