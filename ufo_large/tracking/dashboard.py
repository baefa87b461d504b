"""Build the wandb workspace of a run: the same sections and charts as the report, live and over many runs."""

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ufo_large.tracking.curves import task_names
from ufo_large.tracking.jsonl import FILE_NAME, read_metrics
from ufo_large.tracking.panels import Panel, headlines, sections

NAME = "UFO-Large"


def build_workspace(keys: Iterable[str], entity: str, project: str) -> Any:
    """Return a `wandb_workspaces.workspaces.Workspace` for runs that log `keys`; needs no network.

    `save()` on it sends it to wandb. Validation metrics get a chart, and the drawn predictions a gallery,
    even before the first validation.
    """
    keys = list(keys)
    workspaces, reports = _libraries()
    found = {s.title: [_line_plot(reports, p) for p in s.panels] for s in sections(keys)}
    found["Validation"] = [_validation_plot(reports), _gallery(reports, task_names(keys))]
    order = ["Losses", "Validation", "Balance", "Routing", "Training"]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            workspaces.Section(name=title, panels=found[title], is_open=title != "Training")
            for title in order
            if title in found
        ],
        settings=workspaces.WorkspaceSettings(x_axis="Step", smoothing_type="gaussian", smoothing_weight=5),
    )


def keys_of_run(workdir: Path) -> list[str]:
    """Return the keys that a run has logged. Raises ValueError where it has logged none."""
    entries = read_metrics(Path(workdir) / FILE_NAME)
    keys = list(dict.fromkeys(key for entry in entries for key in entry if key != "step"))
    if not keys:
        raise ValueError(
            f"{workdir}/{FILE_NAME}: nothing logged yet; give the --workdir of a run that trains"
        )
    return keys


def specification(workspace: Any) -> dict[str, Any]:
    """Return the workspace as the JSON that wandb stores for it."""
    return workspace._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)


def _line_plot(reports: Any, panel: Panel) -> Any:
    low, high = panel.limits
    # Where the report looks at the values to choose the axis, wandb has to be told before there are any.
    log = panel.scale == "auto" and ("norm" in panel.title or panel.title == "Task weight")
    return reports.LinePlot(
        title=panel.title,
        y=list(panel.keys),
        range_y=(low, high),
        log_y=log or None,
    )


def _validation_plot(reports: Any) -> Any:
    return reports.LinePlot(
        title="Headline metrics", metric_regex=f"^val/(.*/)?({'|'.join(headlines())})$", range_y=(0, 1)
    )


def _gallery(reports: Any, tasks: Sequence[str]) -> Any:
    """Return the drawn predictions (see `Tracker.examples`), with a slider over the steps."""
    return reports.MediaBrowser(
        title="Predictions", media_keys=[f"examples/{task}" for task in tasks], num_columns=4
    )


def _libraries() -> tuple[Any, Any]:
    try:
        return (
            importlib.import_module("wandb_workspaces.workspaces"),
            importlib.import_module("wandb_workspaces.reports.v2"),
        )
    except ImportError as error:
        raise RuntimeError("the dashboard needs a package: `pip install wandb-workspaces`") from error
