"""Event files for TensorBoard, read back by its own reader: values, pictures, resumes, and its absence."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from ufo_large.testing.simulated_run import invented_examples
from ufo_large.tracking import Tracker
from ufo_large.tracking.examples import draw_examples

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def tracked(workdir, steps, resume_step=None, examples=()):
    config = Tracker.Config(tensorboard=True)
    with config.build(workdir, total_steps=9, run_config={}, resume_step=resume_step) as tracker:
        for step in steps:
            tracker.log(step, {"cls/total": step / 4})
        tracker.log(steps[-1], {"val/cls/top1": math.nan})
        tracker.examples(steps[-1], examples)


def read(workdir):
    events = accumulator.EventAccumulator(str(workdir / "tensorboard"), {"images": 0, "scalars": 0})
    return events.Reload()


def scalars(workdir, tag="cls/total"):
    return [(event.step, event.value) for event in read(workdir).Scalars(tag)]


def test_values_and_drawn_pictures_are_read_back(tmp_path):
    examples = [e for task in ("cls", "dec") for e in invented_examples(task, np.random.default_rng(0))]
    tracked(tmp_path, [1, 2, 3], examples=examples)
    assert scalars(tmp_path) == [(1, 0.25), (2, 0.5), (3, 0.75)]
    ((step, value),) = scalars(tmp_path, "val/cls/top1")
    assert step == 3 and math.isnan(value)
    events = read(tmp_path)
    assert events.Tags()["images"] == [f"examples/{task}/{n}" for task in ("cls", "dec") for n in (0, 1)]
    (stored,) = events.Images("examples/dec/0")
    drawn = [picture for example, _, picture in draw_examples(examples) if example.info.name == "dec"]
    with Image.open(io.BytesIO(stored.encoded_image_string)) as picture:
        assert stored.step == 3 and np.array_equal(np.asarray(picture), drawn[0])


def test_a_resume_hides_what_was_written_beyond_its_step_and_a_new_run_everything(tmp_path):
    tracked(tmp_path, [1, 2, 3, 4])
    tracked(tmp_path, [3], resume_step=2)
    assert scalars(tmp_path) == [(1, 0.25), (2, 0.5), (3, 0.75)]
    tracked(tmp_path, [1])
    assert scalars(tmp_path) == [(1, 0.25)]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3


def test_other_ranks_and_other_runs_write_nothing(tmp_path):
    Tracker.Config(tensorboard=True).build(tmp_path, total_steps=1, run_config={}, rank=1).finish()
    Tracker.Config().build(tmp_path, total_steps=1, run_config={}).finish()
    assert not (tmp_path / "tensorboard").exists()


def test_pictures_are_wanted_for_it():
    assert Tracker.Config(tensorboard=True, pictures=2).pictures_wanted() == 2


def test_a_missing_package_says_how_to_go_on(monkeypatch):
    def refuse(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(ValueError, match=r"ufo-large\[tensorboard\].*tracking\.tensorboard=false"):
        Tracker.Config(tensorboard=True).require_packages()
