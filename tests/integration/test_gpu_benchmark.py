"""The first GPU script runs through at toy size on a CPU: every measurement it will make there is made."""

import json
import os
import subprocess
import sys
from pathlib import Path

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
