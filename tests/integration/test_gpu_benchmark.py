"""The first GPU script at toy size on a CPU: every row is there, and one that fails costs only itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CASES = ["matrix and attention", "timm's model, plain loop", "an expert a task, ZeRO-3"]


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


def test_the_first_gpu_script_runs_at_toy_size(tmp_path):
    code, rows, said = run(tmp_path, CASES)
    assert code == 0, said
    assert {row["case"] for row in rows} == set(CASES)
    assert not [row for row in rows if {"error", "skipped", "failed"} & row.keys()]
    steps = [(row["case"], row["mode"], row["side"]) for row in rows if "images/s" in row]
    wanted = [(CASES[1], "none"), (CASES[2], "none"), (CASES[2], "full")]
    assert steps == [(*job, side) for job in wanted for side in (28, 42)]


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


def test_peaks_are_those_of_the_card(monkeypatch):
    """NVIDIA's data sheets, dense bf16: H100 SXM and H200 989, H100 PCIe 756, H100 NVL 835 TFLOP/s."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/gpu"))
    import clock

    cards = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12, "NVIDIA H100 PCIe": 756e12}
    assert {card: clock.peak(card) for card in cards} == cards
    assert clock.peak("NVIDIA H100 NVL") == 835e12 and clock.peak("cpu") is None
