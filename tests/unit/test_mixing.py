"""Task ratios: kept on average, never an empty step, exact resume, schedules."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufo_large.data.mixing import Stage, TaskMix

TASKS = ("cls", "dec", "seg")


def mix(*stages: tuple[int, dict]) -> TaskMix:
    made = tuple(Stage(start=start, micro_batches=ratios) for start, ratios in stages)
    return TaskMix.Config(stages=made).build(TASKS)


def test_whole_ratios_every_step():
    plan = mix((0, {"cls": 1, "dec": 2, "seg": 1}))
    assert [plan.next() for _ in range(3)] == [{"cls": 1, "dec": 2, "seg": 1}] * 3


def test_halves_take_turns():
    plan = mix((0, {"cls": 0.5, "seg": 0.5}))
    steps = [plan.next() for _ in range(6)]
    assert all(sum(s.values()) == 1 and s["dec"] == 0 for s in steps)
    assert [s["cls"] for s in steps] == [1, 0, 1, 0, 1, 0]


@settings(max_examples=80, deadline=None)
@given(st.tuples(*[st.floats(0, 3)] * 3).filter(lambda r: sum(r) >= 1), st.integers(1, 120), st.data())
def test_ratios_hold_and_resume_is_exact(ratios, steps, data):
    """Every task stays within two micro-batches of its ratio, and a stop changes nothing."""
    config = (0, dict(zip(TASKS, ratios, strict=True)))
    plan, stopped = mix(config), mix(config)
    whole = [plan.next() for _ in range(steps)]
    stop = data.draw(st.integers(0, steps))
    first = [stopped.next() for _ in range(stop)]
    resumed = mix(config)
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert first + [resumed.next() for _ in range(steps - stop)] == whole
    assert all(sum(step.values()) >= 1 for step in whole)
    for task, ratio in zip(TASKS, ratios, strict=True):
        assert abs(sum(step[task] for step in whole) - ratio * steps) <= 2


def test_schedule_switches_at_its_step():
    plan = mix((0, {"cls": 1}), (3, {"dec": 2, "seg": 1}))
    steps = [plan.next() for _ in range(5)]
    assert steps[2] == {"cls": 1, "dec": 0, "seg": 0}
    assert steps[3] == {"cls": 0, "dec": 2, "seg": 1}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([(0, {"cls": 0.5})], "at least 1 together"),
        ([(0, {"cls": 2, "dec": -1})], "0 or more each"),
        ([(1, {"cls": 1})], "begin with 0"),
        ([(0, {"cls": 1}), (0, {"cls": 1})], "rise"),
        ([(0, {"cls": 1, "det": 1})], "no task det; the data has cls, dec, seg"),
    ],
)
def test_senseless_plans_are_refused(stages, message):
    with pytest.raises(ValueError, match=message):
        mix(*stages)


def test_state_of_other_tasks_is_refused():
    with pytest.raises(ValueError, match="the state is of tasks a"):
        mix((0, {"cls": 1})).load_state_dict({"step": 1, "credits": {"a": 0.0}})
