"""A training that is slower than measured gets fewer steps, so that it ends in its time."""

import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ufo_large.config import read_json, to_dict, write_json
from ufo_large.finetuning import children as running
from ufo_large.finetuning.children import ChildFailed, Children
from ufo_large.finetuning.choosing import LEAST_STEPS
from ufo_large.finetuning.keeping_time import Pacer, train_in_time
from ufo_large.finetuning.machine import GB, Machine
from ufo_large.recipes import load_recipe
from ufo_large.runs.config import RunConfig

TRAIN = """
import json, pathlib, signal, sys, time
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
total = json.loads(pathlib.Path(words["--recipe"]).read_text())["config"]["steps"]
log = pathlib.Path(words["--workdir"]) / "metrics.jsonl"
begun = len(log.read_text().splitlines()) if log.exists() else 0
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
for step in range(begun + 1, total + 1):
    time.sleep(0.02)
    with log.open("a") as opened:
        opened.write(json.dumps({"step": step}) + "\\n")
    if told:
        sys.exit(75)
"""


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return replace(load_recipe("mini"), steps=400, evaluate_every=40, ds="none")


def seen_steps(pacer: Pacer, log: Path, at: dict[int, float], clock: list[float]) -> list[bool]:
    """Return what the pacer says when each step of `at` has been logged at its second."""
    late = []
    for step, second in at.items():
        with log.open("a") as opened:
            opened.write(json.dumps({"step": step}) + "\n")
        clock[0] = second
        late.append(pacer.is_late())
    return late


@pytest.mark.parametrize(
    ("ends_at", "step_s", "steps"),
    [(500.0, 1.0, None), (500.0, 2.0, 200), (60.0, 2.0, 40), (math.inf, 1e6, None)],
)
def test_steps_are_cut_to_what_fits(tmp_path, config, ends_at, step_s, steps):
    """Of 400 steps at 2 s each and 500 s, 20 are done at 50 s; 0.9 x 440 / 2 more fit, in 40s: 200."""
    clock = [0.0]
    pacer = Pacer(tmp_path, config, ends_at, lambda: clock[0])
    at = {step: 10.0 + step_s * (step - 1) for step in (1, LEAST_STEPS, LEAST_STEPS + 1)}
    *early, late = seen_steps(pacer, tmp_path / "metrics.jsonl", at, clock)
    assert not any(early) and late == (steps is not None) and pacer.steps == steps
    assert not pacer.is_late()  # it is said once


def test_what_was_logged_before_the_start_is_no_measure(tmp_path, config):
    clock = [0.0]
    write = (tmp_path / "metrics.jsonl").write_text
    write(json.dumps({"step": 399}) + "\n")
    pacer = Pacer(tmp_path, config, 1.0, lambda: clock[0])
    clock[0] = 100.0
    assert not pacer.is_late() and pacer.steps is None


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder whose training writes steps of 20 ms and leaves with 75 when told."""
    (tmp_path / "launchers").mkdir()
    (tmp_path / "launchers/train.py").write_text(TRAIN)
    return tmp_path


def trained(project: Path, config: RunConfig, ends_at: float) -> tuple[int, int]:
    """Return the steps that were done, and those in the settings afterwards."""
    settings = project / "finetune.json"
    write_json(settings, {"begun_with": "--data X", "config": to_dict(config)})
    children = Children(root=project, machine=Machine(gpus=0, cores=1, memory=GB, bf16=False))
    train_in_time(project, settings, config, project, children, ends_at)
    held = read_json(settings, "")
    assert held["begun_with"] == "--data X"
    return len((project / "metrics.jsonl").read_text().splitlines()), held["config"]["steps"]


def test_a_slow_training_is_begun_again_with_fewer_steps(project, config, monkeypatch, capfd):
    monkeypatch.setattr(running, "POLL_S", 0.05)
    done, held = trained(project, config, time.monotonic() + 4.0)
    assert done == held and held < 400 and held % 40 == 0
    assert f"slower than measured: {held} steps, not 400, fit the time" in capfd.readouterr().out


def test_without_a_deadline_all_steps_are_done(project, config):
    assert trained(project, replace(config, steps=20, evaluate_every=10), math.inf) == (20, 20)


def test_an_end_that_nobody_asked_for_stays_an_end(project, config):
    (project / "launchers/train.py").write_text(f"raise SystemExit({os.EX_TEMPFAIL})")
    with pytest.raises(ChildFailed, match="75"):
        trained(project, config, math.inf)
