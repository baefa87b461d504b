"""`make demo` learns its world: some five minutes, so it runs with `make test-slow` only."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_demo_reaches_its_scores(tmp_path):
    done = subprocess.run(
        ["make", "demo", f"RUN={tmp_path / 'run'}"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["top1"] > 0.90  # measured 0.930
    assert metrics["map50"] > 0.50  # measured 0.776
    assert metrics["miou"] > 0.60  # measured 0.646
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
