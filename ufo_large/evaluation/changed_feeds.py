"""Test-time options of a finished run: views for all tasks at once, and a name for results that have any."""

import hashlib
import re
from collections.abc import Sequence

from ufo_large.config import did_you_mean
from ufo_large.data.views import Views
from ufo_large.kinds import kind_of
from ufo_large.runs.folder import SavedRun
from ufo_large.structures import TaskInfo

LONGEST_NAME = 100


def for_all_tasks(saved: SavedRun, wanted: Views) -> list[str]:
    """Return assignments that give every task of a run those of the views that its kind can have.

    Raises ValueError for an option that no task of the run can have.
    """
    found = [(info, option) for info in saved.tasks for option in _options(info, wanted).items()]
    taken = {name for _, (name, _) in found}
    asked = {"flip": wanted.flip, "scales": wanted.scales != (1.0,), "fusion": wanted.fusion is not None}
    for name, is_asked in asked.items():
        if is_asked and name not in taken:
            raise ValueError(_refusal(saved, name, wanted.fusion))
    place = lambda info: info.name if info.name in saved.config.tasks else info.kind
    assignments = [f"tasks.{place(info)}.loader.views.{name}={value}" for info, (name, value) in found]
    return list(dict.fromkeys(assignments))


def _options(info: TaskInfo, wanted: Views) -> dict[str, str]:
    """Return the fields of the views that a task can have, as text."""
    kind, found = kind_of(info), {}
    if wanted.flip and kind.fusions:
        found["flip"] = "true"
    if wanted.scales != (1.0,) and kind.any_scale and (kind.fusions or len(wanted.scales) == 1):
        found["scales"] = ",".join(f"{scale:g}" for scale in wanted.scales)
    several = "flip" in found or ("scales" in found and len(wanted.scales) > 1)
    if several and wanted.fusion in kind.fusions:
        found["fusion"] = wanted.fusion
    return found


def _refusal(saved: SavedRun, option: str, fusion: str | None) -> str:
    known = {way for info in saved.tasks for way in kind_of(info).fusions}
    if option == "fusion" and fusion not in known:
        told = did_you_mean(fusion, sorted(known))
        return f"--fusion {fusion} is no way to join predictions of any task of the run.{told}"
    tasks = ", ".join(f"{info.name} ({info.kind})" for info in saved.tasks)
    needs = "; it joins the views of --flip and --scales" if option == "fusion" else ""
    return f"--{option} has no effect on any task of the run: {tasks}{needs}"


def name_of(wanted: Views, assignments: Sequence[str]) -> str:
    """Return a folder name that tells results with these options from others of the run."""
    words = ["flip"] if wanted.flip else []
    if wanted.scales != (1.0,):
        words.append("_".join(["scales", *(f"{scale:g}" for scale in wanted.scales)]))
    words += [wanted.fusion] if wanted.fusion else []
    words += [a.removeprefix("tasks.").replace(".loader.", ".") for a in assignments]
    name = re.sub(r"[^\w.-]+", "_", "-".join(words))
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
