"""The first GPU script at toy size on a CPU: every row is there, and one that fails costs only itself."""

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
BALANCED = (
    "plain sum",
    *(f"{m}{what}" for what in ("", ", what it adds") for m in ("tbgn", "pcgrad", "nash_mtl")),
)
CASES = ["matrix and attention", "timm's model, plain loop", "an expert a task, ZeRO-3"]
BALANCING = ["balancing, ViT-g", "balancing, ViT-g with experts"]


def run(out: Path, cases: list[str], *options: str, **changes: str) -> tuple[int, list[dict], str]:
    """Return exit code, rows and the printed table."""
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "OUT": str(out),
        "DS_ACCELERATOR": "cpu",
        **changes,
    }
    command = ["bash", str(ROOT / "benchmarks/gpu/run_all.sh"), "--toy", *options, "--cases", *cases]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    rows = [json.loads(line) for line in (out / "gpu_toy.jsonl").read_text().splitlines()]
    return done.returncode, rows, done.stdout + done.stderr[-3000:]


@pytest.mark.slow
def test_the_first_gpu_script_runs_at_toy_size(tmp_path):
    code, rows, said = run(tmp_path, CASES)
    assert code == 0, said
    assert {row["case"] for row in rows} == set(CASES)
    assert not [row for row in rows if {"error", "skipped", "failed"} & row.keys()]
    steps = [(row["case"], row["mode"], row["side"]) for row in rows if "images/s" in row]
    wanted = [(CASES[1], "none"), (CASES[2], "none"), (CASES[2], "full")]
    assert steps == [(*job, side) for job in wanted for side in (28, 42)]


@pytest.mark.slow
def test_the_cost_of_balancing_at_toy_size(tmp_path):
    code, rows, said = run(tmp_path, BALANCING)
    assert code == 0, said
    assert [(row["case"], row["method"]) for row in rows if "ratio" in row] == [
        (case, method) for case in BALANCING for method in BALANCED
    ]
    assert "| balancing, ViT-g | plain sum |" in said and not [row for row in rows if "failed" in row]


@pytest.mark.slow
def test_the_parts_of_a_step_at_toy_size(tmp_path):
    code, rows, said = run(tmp_path, ["a shard of task gradients", "parts of a step, expandable segments"])
    assert code == 0, said
    assert sum("elements" in row["part"] for row in rows) == 5
    parts = {row["part"] for row in rows}
    assert parts >= {"whole step", "forward", "backward", "step", "measure", "combine"}
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.slow
def test_what_is_outside_the_trunk_at_toy_size(tmp_path):
    code, rows, said = run(tmp_path, ["outside the trunk"])
    assert code == 0, said
    assert not [row for row in rows if not row.get("seconds")]
    timed = {(row["op"], row["form"], row.get("cudnn.benchmark")) for row in rows}
    for benchmark in (False, True):
        assert {("transposed 2x2", form, benchmark) for form in ("torch", "ours")} <= timed
    assert ("resample to stride 16", "ours", False) in timed
    assert {form for op, form, _ in timed if op == "DETR loss"} == {"libraries", "ours"}
    assert "| seg | enlarge 2 times | ours | channels last | False |" in said


@pytest.mark.slow
def test_a_row_that_does_not_fit_and_a_process_that_breaks_cost_only_themselves(tmp_path):
    """Memory runs out at 28 pixels, and timm's model is not there at all."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, torch\n"
        "if '--model=timm' in sys.argv: print('no timm', file=sys.stderr, flush=True), os._exit(3)\n"
        "kept = torch.randint\n"
        "def randint(*a, **k):\n"
        "    if len(a) == 3 and 28 in a[2]: raise torch.OutOfMemoryError('no room. Tried hard')\n"
        "    return kept(*a, **k)\n"
        "torch.randint = randint\n"
    )
    cases = ["timm's model, plain loop", "an expert a task, plain torch"]
    code, rows, said = run(tmp_path, cases, PYTHONPATH=str(tmp_path))
    assert code == 1
    broken, *others = rows
    assert broken == {"case": cases[0], "mode": "none", "error": "no timm"}
    for mode, (small, large) in zip(("none", "full"), (others[:2], others[2:]), strict=True):
        assert (small["mode"], small["side"], large["mode"]) == (mode, 28, mode)
        assert small["failed"].startswith("OutOfMemoryError: no room")
        assert large["side"] == 42 and large["images/s"] > 0
    assert "no room" in said


def test_without_time_the_rest_is_said_to_be_skipped(tmp_path):
    code, rows, _ = run(tmp_path, CASES[1:2], "--budget", "1")
    assert code == 0
    assert rows == [{"case": CASES[1], "mode": "none", "skipped": "no time was left"}]


@pytest.fixture
def scripts(monkeypatch):
    """Import a file of benchmarks/gpu as it imports others: from its own folder."""
    for folder in ("benchmarks", "benchmarks/gpu"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    yield importlib.import_module
    for name in ("trunk", "run_all", "clock", "workload"):
        sys.modules.pop(name, None)


@torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=False)
def test_every_block_is_compiled_at_every_size_or_the_row_fails(scripts):
    """Past torch's limit of recompilations modules run uncompiled in silence: here that is an error."""
    trunk = scripts("trunk")
    args = argparse.Namespace(model="timm", compile=True, toy=True)
    step = trunk.build(args)
    step(torch.zeros(1, 3, 28, 28, dtype=torch.uint8))
    with pytest.raises(Exception, match="recompile_limit"):
        step(torch.zeros(1, 3, 42, 42, dtype=torch.uint8))
    scripts("clock").free()
    trunk.build(args)(torch.zeros(1, 3, 42, 42, dtype=torch.uint8))


def test_a_case_that_hangs_is_ended_and_keeps_its_rows(scripts, monkeypatch, tmp_path):
    run_all = scripts("run_all")
    (tmp_path / "hang.py").write_text(
        "import time\nprint('{\"images/s\": 1.0}', flush=True)\ntime.sleep(600)"
    )
    monkeypatch.setattr(run_all, "HERE", tmp_path)
    monkeypatch.setattr(run_all, "CASES", dict.fromkeys(("hang", "next"), ("hang.py", (), (None,))))
    monkeypatch.setattr(run_all, "LONGEST", 10)
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
