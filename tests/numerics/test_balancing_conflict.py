"""The planted-conflict benchmark: its problem is what it says, and its headline holds."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from ufo_large.balancing import METHODS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "conflict.py"


@pytest.fixture(scope="module")
def conflict():
    spec = importlib.util.spec_from_file_location("conflict", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_written_gradients_are_autograds(conflict):
    shared_5, heads_M = (t.clone().requires_grad_() for t in conflict.start())
    found_M5, found_M = conflict.gradients_of(shared_5.detach(), heads_M.detach())
    for k, loss in enumerate(conflict.losses_of(shared_5, heads_M)):
        shared_5g, heads_g = torch.autograd.grad(loss, (shared_5, heads_M), retain_graph=True)
        assert found_M5[k].tolist() == pytest.approx(shared_5g.tolist(), abs=1e-12)
        assert found_M[k].item() == pytest.approx(heads_g[k].item(), abs=1e-12)


def test_summing_provably_fails_the_small_task(conflict):
    """In closed form: where the sum is least, the small task is worse off than before training."""
    begin_M = conflict.losses_of(*conflict.start())
    kept_M = conflict.optimum_of(torch.ones(3, dtype=torch.float64)) / begin_M
    assert kept_M[2] > 1.3 and kept_M[0] < 0.01
    fair_M = conflict.optimum_of(1 / conflict.SCALES_M) / conflict.SCALES_M
    assert fair_M.tolist() == pytest.approx([0.5] * 3)


def test_training_arrives_where_the_closed_form_says(conflict):
    """200 noisy steps reach the minimum of a weighted sum within 0.05 of the first loss (measured 0.021)."""
    begin_M = conflict.losses_of(*conflict.start())
    for by_task in ({}, {"large": 0.01, "middle": 0.1}):
        losses_M = conflict.train(METHODS["fixed"].Config(by_task=by_task), steps=200, seed=0)
        weights_M = torch.tensor([by_task.get(t, 1.0) for t in conflict.TASKS], dtype=torch.float64)
        assert ((losses_M - conflict.optimum_of(weights_M)) / begin_M).abs().max() < 0.05


def test_the_default_method_rescues_the_small_task(conflict):
    begin_M = conflict.losses_of(*conflict.start())
    kept_M = conflict.train(METHODS["tbgn"].Config(), steps=200, seed=0) / begin_M
    assert kept_M.max() < 0.6


def test_the_script_prints_one_json_object_last(conflict, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["conflict.py", "--steps", "3", "--seeds", "1", "--json"])
    conflict.main()
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {row["method"] for row in printed["rows"]} >= set(METHODS)


def test_the_note_keeps_the_remarks_below_its_table(conflict, monkeypatch, tmp_path):
    note = tmp_path / "note.md"
    note.write_text("# Old\n\n| old |\n\n## Remarks\n\nkept\n")
    monkeypatch.setattr(conflict, "RESULTS", note)
    monkeypatch.setattr(sys, "argv", ["conflict.py", "--steps", "2", "--seeds", "1", "--write"])
    conflict.main()
    text = note.read_text()
    assert (
        text.startswith("# Planted conflict") and "old" not in text and text.endswith("## Remarks\n\nkept\n")
    )
