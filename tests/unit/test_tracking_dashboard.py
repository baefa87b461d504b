"""The wandb workspace is built and checked without a network."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from ufo_large.testing.simulated_run import simulate_run, step_values
from ufo_large.tracking.dashboard import build_workspace, keys_of_run, specification

ROOT = Path(__file__).resolve().parents[2]
KEYS = list(step_values(1, 10, ("cls", "dec", "seg"), np.random.default_rng(0), 2))


@pytest.fixture
def offline(monkeypatch):
    """Any attempt to reach wandb fails."""
    pytest.importorskip("wandb_workspaces", reason="needs wandb-workspaces")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def panels_of(spec):
    """Return {section: {title: panel config}} of a workspace's JSON."""
    spec = spec["spec"]
    spec = json.loads(spec) if isinstance(spec, str) else spec
    found = spec["section"]["panelBankConfig"]["sections"]
    return {s["name"]: {p["config"]["chartTitle"]: p["config"] for p in s["panels"]} for s in found}


def test_every_chart_of_the_report_is_in_the_workspace(offline):
    panels = panels_of(specification(build_workspace(KEYS, "team", "ufo-large")))
    assert list(panels)[:5] == ["Losses", "Validation", "Balance", "Routing", "Training"]
    assert panels["Validation"].pop("Predictions")["mediaKeys"] == [
        f"examples/{t}" for t in ("cls", "dec", "seg")
    ]
    shown = {key for section in panels.values() for panel in section.values() for key in panel["metrics"]}
    in_charts = {key for key in KEYS if "/path/" not in key}  # the report has a table of those
    assert shown == in_charts - {"cls/cross_entropy"}
    assert panels["Losses"]["Loss of dec"]["metrics"][0] == "dec/total"
    cosines = panels["Balance"]["Cosine between task gradients"]
    assert (cosines["yAxisMin"], cosines["yAxisMax"]) == (-1.0, 1.0)
    assert panels["Balance"]["Trunk gradient norm before balancing"]["yLogScale"] is True


def test_validation_chart_takes_headline_metrics_of_any_task_and_no_single_classes(offline):
    panels = panels_of(specification(build_workspace(KEYS, "team", "ufo-large")))
    pattern = panels["Validation"]["Headline metrics"]["metricRegex"]
    keys = ["val/cls/top1", "val/score", "val/dec/map50", "val/cls/top1/sedan", "cls/total", "val/dec/map75"]
    keys += ["val/cls/mean_class_top1"]
    assert [k for k in keys if re.search(pattern, k)] == keys[:3]


def test_the_library_reads_back_what_it_made(offline):
    from wandb_workspaces.workspaces import Workspace

    workspace = build_workspace(KEYS, "team", "ufo-large")
    again = Workspace._from_model(workspace._to_model())
    assert again.name == workspace.name
    assert [(s.name, len(s.panels)) for s in again.sections if s.panels] == [
        (s.name, len(s.panels)) for s in workspace.sections
    ]


def test_the_command_writes_the_workspace_of_a_run(offline, tmp_path, monkeypatch):
    simulate_run(tmp_path, steps=2, tasks=("cls",), scored=False)
    out = tmp_path / "workspace.json"
    command = ["dashboard.py", "--workdir", str(tmp_path), "--entity", "team", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(ROOT / "launchers" / "dashboard.py"), run_name="__main__")
    assert "Loss of cls" in panels_of(json.loads(out.read_text()))["Losses"]


@pytest.mark.parametrize("sent", [False, True])
def test_the_command_says_what_it_cannot_write_or_send(offline, tmp_path, monkeypatch, sent):
    simulate_run(tmp_path, steps=2, tasks=("cls",), scored=False)
    command = ["dashboard.py", "--workdir", str(tmp_path), "--entity", "team"]
    monkeypatch.setattr(sys, "argv", command if sent else [*command, "--out", str(tmp_path / "no/file")])
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "launchers" / "dashboard.py"), run_name="__main__")
    assert stop.value.code.startswith("error: ")


def test_a_run_without_steps_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing logged yet; give the --workdir"):
        keys_of_run(tmp_path)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(RuntimeError, match="pip install wandb-workspaces"):
        build_workspace(KEYS, "team", "ufo-large")
