"""compare_tasks.py with real trainings of seconds, of one task alone."""

import re

import pytest

from ufo_large.comparing.records import Records
from ufo_large.testing.settings import IN_THE_PROCESS, NO_WANDB, SMALL_MODEL, TWO_IMAGES_EACH

SETTINGS = (*SMALL_MODEL, *TWO_IMAGES_EACH, *IN_THE_PROCESS, NO_WANDB, "steps=3")


@pytest.fixture
def compare(tiny_shards, script, tmp_path):
    def run(*options: str) -> str:
        words = ["--recipe", "demo", "--data", tiny_shards, "--out", tmp_path, "--seeds", 1, "--cores", 1]
        words += [word for setting in SETTINGS for word in ("--set", setting)]
        done = script("launchers/compare_tasks.py", *words, "--only", "single: cls", *options, timeout=500)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return run


@pytest.mark.slow
def test_a_real_run_is_trained_scored_recorded_and_shown(compare, tmp_path):
    told = compare("--set", "ds=none")
    assert "1 runs: 0 are there, 1 to do" in told and re.search(r"\[1/1\] single: cls, seed 0: \S+ min", told)
    (record,) = Records(tmp_path / "records.jsonl").rows
    assert record.images == {"cls": 3 * 2} and record.seconds > 0 and record.wall_s > record.seconds
    assert record.scores["test"]["tasks"].keys() == record.scores["val"]["tasks"].keys() == {"cls"}
    assert f"| single: cls | 1 | {100 * record.figures['top1']:.2f} |" in told
    assert "single: cls" in (tmp_path / "comparison.html").read_text()


@pytest.mark.slow
def test_a_run_under_deepspeed_is_measured_and_trained(compare, tmp_path):
    assert re.search(r"about 0\.\d\d hours are left, 1 at a time", compare("--hours"))
    assert "1 runs: 0 are there, 1 to do" in compare() and "1 runs: 1 are there, 0 to do" in compare()
