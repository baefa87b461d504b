"""What benchmark scripts say of a folder that they cannot use, and where there is no git checkout."""

import contextlib
import importlib
import json
import runpy
import sys
from pathlib import Path

import pytest

from ufo_large.tracking.environment import commit_text

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


def test_the_loaders_benchmark_refuses_a_folder_that_is_not_there(script):
    done = script("benchmarks/loader.py", "--data", "/nope")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "--data /nope: no .jpg files in cls/train; give a train root" in done.stderr


def test_the_loaders_benchmark_refuses_photographs_that_are_too_small(tmp_path, script):
    (tmp_path / "cls/train").mkdir(parents=True)
    (tmp_path / "cls/train/a.jpg").write_bytes(b"")
    (tmp_path / "dec").mkdir()
    (tmp_path / "dec/train.json").write_text(json.dumps({"images": [{"width": 379, "height": 280}]}))
    assert "has no picture of 380x280 or more" in script("benchmarks/loader.py", "--data", tmp_path).stderr


def test_a_benchmark_needs_no_git_commit():
    assert commit_text({"hash": None, "dirty": None}) == "unknown (no git checkout)"
    assert commit_text({"hash": "0123456789abcdef", "dirty": True}) == "0123456789 and changes"


def test_no_benchmark_reads_a_commit_itself():
    texts = {path.name: path.read_text() for path in (ROOT / "benchmarks").rglob("*.py")}
    assert [name for name, text in texts.items() if "['hash']" in text or '"git"' in text] == []


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("balancing.py", ("--methods", "pcgard"), "Did you mean 'pcgrad'"),
        ("balancing.py", (), "no such folder"),
    ],
)
def test_a_wrong_call_of_a_benchmark_is_one_clean_message(monkeypatch, capsys, tmp_path, name, options, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [name, "--data", str(tmp_path / "none"), *options])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    assert said in f"{stop.value.code} {capsys.readouterr().err}"


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "docs").glob("draw_*.py")))
def test_help_of_a_picture_script_draws_nothing(monkeypatch, capsys, name):
    script = ROOT / "docs" / name
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 0 and "--out" in capsys.readouterr().out


CASE = "mIoU of 1024 x 2048 / numpy's bincount"


@pytest.mark.parametrize(("highest", "is_behind"), [(1e-6, True), (1e6, False)])
def test_a_ratio_above_the_committed_ones_fails_the_benchmark(
    monkeypatch, capsys, tmp_path, highest, is_behind
):
    """Behind is what is slower in its best round than what is committed was in its worst."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    ratios = importlib.import_module("cpu_ratios")
    committed = {"ratio": highest, "low": highest, "high": highest}
    (tmp_path / "ratios.json").write_text(json.dumps({"ratios": {CASE: committed}}))
    monkeypatch.setattr(ratios, "FILE", tmp_path / "ratios.json")
    monkeypatch.setattr(sys, "argv", ["cpu_ratios.py", "--cases", CASE, "--rounds", "1", "--json"])
    with pytest.raises(SystemExit) if is_behind else contextlib.nullcontext() as stop:
        ratios.main()
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["behind"] == ([CASE] if is_behind else []) and said["ratios"][CASE]["product"] > 0
    assert not is_behind or "slower than committed" in str(stop.value)
