"""The local log, the tracker, the console line and the environment record."""

import io
import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ufo_large.tracking import MetricsLog, Tracker, describe_environment, jsonl, read_metrics
from ufo_large.tracking.console import ConsoleProgress, format_duration
from ufo_large.tracking.environment import describe_commit, read_environments, save_environment


def write_steps(path, steps, resume_step=None):
    log = MetricsLog(path, resume_step)
    for step in steps:
        log.log(step, {"cls/total": step / 2})
    log.finish()


def test_values_come_back_in_order_and_not_finite_ones_as_nan(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.log(1, {"cls/total": 1.5, "train/grad_norm": math.inf})
    log.log(1, {"val/cls/top1": 0.25})
    log.log(2, {"cls/total": math.nan})
    log.finish()
    first, second = read_metrics(tmp_path / "metrics.jsonl")
    assert (
        first["cls/total"] == 1.5 and first["val/cls/top1"] == 0.25 and math.isnan(first["train/grad_norm"])
    )
    assert second["step"] == 2 and math.isnan(second["cls/total"])
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_missing_file_reads_as_no_steps(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@given(cut=st.integers(min_value=0, max_value=200))
def test_a_file_cut_anywhere_gives_the_whole_lines_before_the_cut(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    write_steps(path, range(1, 9))
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n")
    steps = [entry["step"] for entry in read_metrics(path)]
    # A cut right before a newline leaves a whole last line, which may be kept.
    assert steps in (list(range(1, complete + 1)), list(range(1, complete + 2)))


def test_going_on_after_a_torn_line_does_not_glue_lines_together(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(1, 6))
    path.write_bytes(path.read_bytes()[:-7])
    write_steps(path, [5, 6], resume_step=4)
    assert [(e["step"], e["cls/total"]) for e in read_metrics(path)] == [(s, s / 2) for s in range(1, 7)]


@pytest.mark.parametrize("tail", [1 << 18, 200])
def test_the_last_step_is_read_from_the_end(tmp_path, monkeypatch, tail):
    monkeypatch.setattr(jsonl, "TAIL_BYTES", tail)
    path = tmp_path / "metrics.jsonl"
    assert jsonl.last_step(path) == 0
    write_steps(path, range(1, 100))
    assert jsonl.last_step(path) == 99
    path.write_bytes(path.read_bytes()[:-7])
    assert jsonl.last_step(path) == 98  # a torn line is none


def test_resume_drops_the_steps_beyond_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(1, 11))
    write_steps(path, [6, 7], resume_step=5)
    assert path.read_text().count("\n") == 7
    assert [e["step"] for e in read_metrics(path)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_new_run_starts_an_empty_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(1, 11))
    write_steps(path, [1])
    assert len(read_metrics(path)) == 1


def test_a_bad_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: .*nonsense.*delete that line"):
        read_metrics(path)


class Recorder:
    def __init__(self, fail=False):
        self.lines, self.finished, self.fail = [], False, fail

    def log(self, step, values):
        self.lines.append((step, dict(values)))

    def finish(self):
        self.finished = True
        if self.fail:
            raise OSError("disk full")


def test_tracker_reaches_every_sink_and_closes_all_even_if_one_fails():
    sinks = [Recorder(fail=True), Recorder()]
    tracker = Tracker(sinks)
    tracker.log(3, {"cls/total": 1.0})
    tracker.examples(3, [None])  # no sink here takes pictures: nothing is drawn
    with pytest.raises(OSError, match="disk full"):
        tracker.finish()
    assert all(s.finished and s.lines == [(3, {"cls/total": 1.0})] for s in sinks)


def test_pictures_are_drawn_only_where_someone_takes_them():
    assert Tracker.Config().pictures_wanted() == 0
    assert Tracker.Config(wandb="offline", pictures=3).pictures_wanted() == 3
    with pytest.raises(ValueError, match="pictures=-1: must be 0 or more"):
        Tracker.Config(pictures=-1)


def test_other_ranks_write_nothing(tmp_path):
    with Tracker.Config().build(tmp_path, total_steps=3, run_config={}, rank=1) as tracker:
        tracker.log(1, {"cls/total": 1.0})
    assert list(tmp_path.iterdir()) == []


def console_output(terminal, **options):
    now = iter(float(t) for t in range(1000))
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    progress = ConsoleProgress(40, console=console, clock=lambda: next(now), **options)
    for step in range(1, 41):
        progress.log(step, {"cls/total": 40 / step, "dec/total": 1.0, "dec/box": 0.5})
    progress.log(40, {"val/cls/top1": 0.5})
    progress.finish()
    return console.file.getvalue()


def test_without_a_terminal_lines_come_at_intervals_with_speed_and_time_left():
    # The clock ticks twice a step (speed, line): half a step a "second", a line every 10 steps.
    lines = console_output(False, line_seconds=20.0).splitlines()
    assert lines[0] == "step 1/40 (2 %)  cls 40.000  dec 1.000"
    assert lines[1].startswith("expected: 1:20 for all 40 steps without validation, 1:12 from now, until ")
    del lines[1]
    assert lines[1] == "step 11/40 (28 %)  cls 3.636  dec 1.000  2.00 s/it  left 0:58"
    assert [line.split()[1] for line in lines[:-1]] == ["1/40", "11/40", "21/40", "31/40", "40/40"]
    assert lines[-1] == "step 40  validation  cls/top1 0.5"
    assert "dec/box" not in "".join(lines)


def test_on_a_terminal_one_live_line_ends_at_the_last_step():
    text = console_output(True)
    assert "40/40" in text and "cls 1.000" in text and "\x1b[" in text and "step 1/40" not in text


def test_durations():
    assert [format_duration(s) for s in (0.4, 59.6, 3599.4, 3723)] == ["0:00", "1:00", "59:59", "1:02:03"]


def test_environment_names_versions_commit_hardware_and_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["launchers/train.py", "--workdir", "my runs/a"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = describe_environment()
    import torch

    assert found["versions"]["torch"] == torch.__version__.split("+")[0] or found["versions"]["torch"] == str(
        torch.__version__
    )
    assert found["command"].endswith("launchers/train.py --workdir 'my runs/a'")
    assert found["world_size"] == 2 and found["hardware"]["cores"] >= 1
    assert json.loads(json.dumps(found)) == found


def test_environment_keeps_one_entry_a_start(tmp_path):
    save_environment(tmp_path)
    save_environment(tmp_path)
    assert len(read_environments(tmp_path)) == 2


def test_a_folder_outside_a_checkout_has_no_commit(tmp_path):
    assert describe_commit(tmp_path) == {"hash": None, "dirty": None}
