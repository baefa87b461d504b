"""Work goes to processes where it is long, and stays where it is little. The items are Python expressions."""

import os

import pytest

from ufo_large.config import load_plugins, plugins
from ufo_large.data import progress
from ufo_large.data.progress import map_in_processes

PROCESS, PLUGINS = "__import__('os').getpid()", "__import__('ufo_large.config').config.loaded_plugins()"


def results(items: list[str], **options) -> list:
    return [result for _, result in map_in_processes(eval, items, 2, "evaluating", **options)]


def test_little_work_stays_in_this_process():
    assert results([PROCESS] * 5) == [os.getpid()] * 5


@pytest.mark.parametrize(("seconds", "weight"), [(0.0, 1), (60.0, progress.LIGHT + 1)])
def test_long_work_goes_to_others(monkeypatch, seconds, weight):
    monkeypatch.setattr(progress, "START_S", seconds)
    assert os.getpid() not in results([PROCESS] * 5, weigh=lambda item: weight)


def test_what_is_left_goes_to_others(monkeypatch):
    monkeypatch.setattr(progress, "START_S", 0.5)
    first, *others = results(["__import__('time').sleep(0.6)", "1 + 1", "2 + 2"])
    assert first is None and sorted(others) == [2, 4]


def test_processes_have_the_plugins(monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text("")
    monkeypatch.setattr(plugins, "_LOADED", [])
    load_plugins([str(tmp_path / "mine.py")])
    monkeypatch.setattr(progress, "START_S", 0.0)
    assert all(str(tmp_path / "mine.py") in found for found in results([PLUGINS, PLUGINS]))


def test_the_first_error_is_raised(monkeypatch):
    for seconds in (60.0, 0.0):
        monkeypatch.setattr(progress, "START_S", seconds)
        with pytest.raises(ZeroDivisionError):
            results(["1 / 0", "2"])
