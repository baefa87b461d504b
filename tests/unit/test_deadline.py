"""Whether another step fits before the time limit."""

import pytest

from ufo_large.train import deadline
from ufo_large.train.deadline import RECENT, Deadline
from ufo_large.train.limits import Limits


@pytest.fixture
def at(monkeypatch):
    """Set the clock."""
    return lambda seconds: monkeypatch.setattr(deadline.time, "monotonic", lambda: seconds)


def test_room_is_kept_for_a_step_and_a_save_and_a_validation_that_is_due(at):
    limit = Deadline(100.0)
    limit.step_took(4.0)
    limit.hook_took(10.0, saves=True)
    limit.hook_took(0.1, saves=True)  # nothing to save that time
    limit.hook_took(20.0, saves=False)
    at(85.9)
    assert not limit.is_near(validates=False) and limit.is_near(validates=True)
    at(86.1)
    assert limit.is_near(validates=False)
    at(65.9)
    assert not limit.is_near(validates=True)
    at(75.9)  # a save now, and one after the next step
    assert not limit.is_near(validates=False, saves=True)
    at(76.1)
    assert limit.is_near(validates=False, saves=True) and not limit.is_near(validates=False)


def test_a_first_step_that_compiles_is_forgotten(at):
    limit = Deadline(100.0)
    limit.step_took(60.0)
    at(50.0)
    assert limit.is_near(validates=False)
    for _ in range(RECENT):
        limit.step_took(1.0)
    assert not limit.is_near(validates=False)


def test_without_a_limit_there_is_always_time(at):
    limit = Deadline()
    limit.step_took(1e9)
    at(1e9)
    assert not limit.is_near(validates=True)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("inf")])
def test_a_hang_timeout_is_a_time(timeout):
    with pytest.raises(ValueError, match="must be more than 0 seconds, or None to wait for ever"):
        Limits(hang_timeout_s=timeout)
