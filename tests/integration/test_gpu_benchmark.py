"""The first GPU script runs through at toy size on a CPU: every measurement it will make there is made."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
CASES = ["matrix and attention", "timm's model, plain loop", "an expert a task, ZeRO-3"]


def test_the_first_gpu_script_runs_at_toy_size(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path), "DS_ACCELERATOR": "cpu"}
    command = ["bash", str(ROOT / "benchmarks/gpu/run_all.sh"), "--toy", "--cases", *CASES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "gpu_toy.jsonl").read_text().splitlines()]
    assert {row["case"] for row in rows} == set(CASES)
    assert not [row for row in rows if {"error", "skipped", "failed"} & row.keys()]
    steps = [(row["case"], row["mode"]) for row in rows if "images/s" in row]
    assert steps == [(CASES[1], "none"), (CASES[2], "none"), (CASES[2], "full")]
    assert sum("TFLOP/s" in row for row in rows) == 5 + 3 * 2  # products; head sizes, forward and both ways
    table = (tmp_path / "gpu_toy.md").read_text()
    assert all(case in table for case in CASES[1:])


def test_a_case_without_time_is_written_down(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path)}
    command = ["bash", str(ROOT / "benchmarks/gpu/run_all.sh"), "--toy", "--budget=1"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    rows = [json.loads(line) for line in (tmp_path / "gpu_toy.jsonl").read_text().splitlines()]
    assert rows and all(row["skipped"] for row in rows)


@pytest.fixture
def scripts(monkeypatch):
    """Import a file of benchmarks/gpu as it imports others: from its own folder."""
    for folder in ("benchmarks", "benchmarks/gpu"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    yield importlib.import_module
    for name in ("trunk", "run_all", "clock", "workload"):
        sys.modules.pop(name, None)


def test_a_row_that_fails_costs_itself_alone_and_the_next_has_a_new_model(scripts, monkeypatch, capsys):
    trunk = scripts("trunk")
    monkeypatch.setattr(sys, "argv", ["trunk.py", "--toy", "--modes=none,full"])
    monkeypatch.setattr(trunk, "sides", lambda toy: {28: 2, 42: 1})
    models = []

    def measure(step, toy, side, images):
        models.append(step)
        if len(models) == 1:
            raise torch.OutOfMemoryError("does not fit")
        step(torch.zeros(images, 3, side, side, dtype=torch.uint8))
        return {"images/s": 1.0}

    monkeypatch.setattr(trunk, "measure", measure)
    trunk.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["mode"], r["side"], r.get("failed")) for r in rows] == [
        ("none", 28, "OutOfMemoryError: does not fit"),
        ("none", 42, None),
        ("full", 28, None),
        ("full", 42, None),
    ]
    assert models[0] is not models[1] and models[2] is models[3]


def test_every_block_is_compiled_at_every_size_or_the_row_fails(scripts, monkeypatch):
    """Past torch's limit of recompilations modules run uncompiled in silence: here that is an error."""
    trunk = scripts("trunk")
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", False)  # undone afterwards
    args = argparse.Namespace(model="timm", compile=True, toy=True)
    step = trunk.build(args, "none")
    step(torch.zeros(1, 3, 28, 28, dtype=torch.uint8))
    with pytest.raises(Exception, match="recompile_limit"):
        step(torch.zeros(1, 3, 42, 42, dtype=torch.uint8))
    trunk.release()
    trunk.build(args, "none")(torch.zeros(1, 3, 42, 42, dtype=torch.uint8))


def test_a_case_that_hangs_is_ended_and_keeps_its_rows(scripts, monkeypatch, tmp_path):
    run_all = scripts("run_all")
    (tmp_path / "hang.py").write_text(
        "import time\nprint('{\"images/s\": 1.0}', flush=True)\ntime.sleep(600)"
    )
    monkeypatch.setattr(run_all, "HERE", tmp_path)
    monkeypatch.setattr(run_all, "CASES", {"hang": ("hang.py",), "next": ("hang.py",)})
    monkeypatch.setattr(run_all, "CASE_SECONDS", 10)
    monkeypatch.setattr(
        sys, "argv", ["run_all.py", "--budget=15", "--out", str(tmp_path), "--cases", "hang", "next"]
    )
    run_all.main()
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert rows == [
        {"case": "hang", "images/s": 1.0},
        {"case": "hang", "skipped": "the time ran out here"},
        {"case": "next", "skipped": "no time was left"},
    ]
