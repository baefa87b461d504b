"""wandb online, against a local server: one that answers, one that hangs, one that fails."""

import contextlib
import json
import time
import warnings

import pytest

from ufo_large.testing.wandb_server import WandbServer
from ufo_large.tracking import Tracker, read_metrics

wandb = pytest.importorskip("wandb")
SLACK = 120.0  # seconds, for a machine with much else to do; without a limit wandb would wait for ever


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_RUN_ID", "WANDB_ERROR_REPORTING"):
        monkeypatch.delenv(name, raising=False)
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
        monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
        wandb.teardown()  # what it read of the environment, once a process
        yield server
        with contextlib.suppress(ConnectionError):  # of a process that has crashed
            wandb.teardown()


def tracked(workdir, steps, resume_step=None, during=lambda: None):
    """Log `steps` online, calling `during` before the first; return the seconds of start, steps and end."""
    marks = [time.monotonic()]
    config = Tracker.Config(wandb="online", project="tests")
    tracker = config.build(workdir, total_steps=9, run_config={}, resume_step=resume_step)
    marks.append(time.monotonic())
    during()
    for step in steps:
        tracker.log(step, {"cls/total": step / 4})
    tracker.log(steps[-1], {"val/cls/top1": 0.5})
    marks.append(time.monotonic())
    tracker.finish()
    marks.append(time.monotonic())
    return [end - begin for begin, end in zip(marks, marks[1:], strict=False)]


@pytest.mark.parametrize("mood", ["hangs", "fails"])
def test_a_run_whose_server_is_away_is_written_offline(server, tmp_path, monkeypatch, mood):
    monkeypatch.setattr("ufo_large.tracking.wandb.START_SECONDS", 1.0)
    server.mood = mood
    with pytest.warns(
        UserWarning, match=r"wandb could not be opened online \(CommError.*wandb sync. sends it"
    ):
        start, steps, end = tracked(tmp_path / "run", range(1, 301))
    assert 1 <= start < SLACK and steps < SLACK and end < SLACK
    assert len(read_metrics(tmp_path / "run/metrics.jsonl")) == 300
    (file,) = (tmp_path / "run/wandb").glob("offline-run-*/*.wandb")
    assert file.stat().st_size > 300 and server.requests


@pytest.mark.parametrize("mood", ["hangs", "fails"])
def test_a_server_that_goes_away_delays_no_step_and_the_end_by_a_bounded_time(
    server, tmp_path, monkeypatch, mood
):
    monkeypatch.setattr("ufo_large.tracking.wandb.END_SECONDS", 1.5)

    def leave():
        server.mood = mood

    with pytest.warns(UserWarning, match=r"wandb has failed \(TimeoutError.*`wandb sync` sends"):
        _, steps, end = tracked(tmp_path / "run", range(1, 301), during=leave)
    assert steps < SLACK and 1.5 <= end < SLACK
    assert len(read_metrics(tmp_path / "run/metrics.jsonl")) == 300
    assert list((tmp_path / "run/wandb").glob("run-*/*.wandb"))


def test_a_resumed_run_goes_on_as_the_same_one_and_validation_has_its_own_axis(server, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracked(tmp_path / "run", [1, 2])
        tracked(tmp_path / "run", [3, 4], resume_step=2)
        tracked(tmp_path / "other", [1])
    names = list(dict.fromkeys(run["name"] for run in server.runs))
    assert len(names) == 2 and {run["project"] for run in server.runs} == {"tests"}
    history = [(row["_step"], row["cls/total"], row.get("val/step")) for row in server.history]
    assert history == [(1, 0.25, None), (2, 0.5, 2), (3, 0.75, None), (4, 1.0, 4), (1, 0.25, 1)]
    assert axes(server.runs[-1]) == {"val/*": "val/step"}


def axes(run):
    """Return each pattern's axis as wandb sends it: fields 1 (name), 2 (pattern), 5 (number of the axis)."""
    metrics = json.loads(run["config"])["_wandb"]["value"]["m"]
    return {m["2"]: metrics[m["5"] - 1]["1"] for m in metrics if "2" in m}


def test_wandbs_own_process_that_crashes_ends_nothing(server, tmp_path, monkeypatch):
    """An answer that it does not expect is enough for a panic, which comes as a bare Exception."""
    monkeypatch.setattr(server, "answer", lambda path, body: _without_files(server, path, body))
    with pytest.warns(UserWarning, match="wandb has failed"):
        tracked(tmp_path / "run", [1, 2])
    assert len(read_metrics(tmp_path / "run/metrics.jsonl")) == 2


def _without_files(server, path, body):
    return {"data": {}} if b"createRunFiles" in body else WandbServer.answer(server, path, body)
