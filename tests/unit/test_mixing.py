"""Task ratios: kept on average, never an empty step, exact resume, schedules."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufo_large.data.loader import LoaderConfig
from ufo_large.data.mixing import TaskMix
from ufo_large.runs.config import TaskConfig

TASKS = ("cls", "dec", "seg")


def mix(**ratios: float) -> TaskMix:
    return TaskMix({task: ((0, ratios.get(task, 0)),) for task in TASKS})


def run(plan: TaskMix, steps: range) -> list[dict[str, int]]:
    return [plan.next(step) for step in steps]


def test_whole_ratios_every_step():
    assert run(mix(cls=1, dec=2, seg=1), range(3)) == [{"cls": 1, "dec": 2, "seg": 1}] * 3


def test_halves_take_turns():
    steps = run(mix(cls=0.5, seg=0.5), range(6))
    assert all(sum(s.values()) == 1 and s["dec"] == 0 for s in steps)
    assert [s["cls"] for s in steps] == [1, 0, 1, 0, 1, 0]


@settings(max_examples=80, deadline=None)
@given(st.tuples(*[st.floats(0, 3)] * 3).filter(lambda r: sum(r) >= 1), st.integers(1, 120), st.data())
def test_ratios_hold_and_resume_is_exact(ratios, steps, data):
    """Every task stays within two micro-batches of its ratio, and a stop changes nothing."""
    config = dict(zip(TASKS, ratios, strict=True))
    whole = run(mix(**config), range(steps))
    stop = data.draw(st.integers(0, steps))
    stopped, resumed = mix(**config), mix(**config)
    first = run(stopped, range(stop))
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert first + run(resumed, range(stop, steps)) == whole
    assert all(sum(step.values()) >= 1 for step in whole)
    for task, ratio in zip(TASKS, ratios, strict=True):
        assert abs(sum(step[task] for step in whole) - ratio * steps) <= 2


def test_schedule_switches_at_its_step():
    loader = LoaderConfig(micro_batch=1, image_size=(8, 8))
    cls = TaskConfig(loader=loader, micro_batches=1, micro_batches_from={"3": 0})
    dec = TaskConfig(loader=loader, micro_batches=0, micro_batches_from={"10": 1.5, "3": 2})
    steps = run(TaskMix({"cls": cls.stages, "dec": dec.stages}), range(12))
    assert steps[2] == {"cls": 1, "dec": 0}
    assert steps[3] == {"cls": 0, "dec": 2}
    assert dec.stages == ((0, 0), (3, 2), (10, 1.5))


def test_ratios_whose_sum_rounds_below_one_are_enough():
    assert 0.7 + 0.2 + 0.1 < 1
    plan = TaskMix({"cls": ((0, 0.7),), "dec": ((0, 0.2),), "seg": ((0, 0.1),)})
    assert all(any(plan.next(step).values()) for step in range(20))


def test_a_plan_with_an_empty_step_is_refused():
    with pytest.raises(ValueError, match="from step 0: give at least 1 together"):
        mix(cls=0.5)
    with pytest.raises(ValueError, match="'dec': 0.2} from step 3"):
        TaskMix({"cls": ((0, 1), (3, 0)), "dec": ((0, 0.2),)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"micro_batches": -1}, "-1 from step 0"),
        ({"micro_batches": float("inf")}, "inf from step 0"),
        ({"micro_batches_from": {"30": -0.5}}, "-0.5 from step 30"),
        ({"micro_batches_from": {"0": 1}}, "a step above 0"),
        ({"micro_batches_from": {"soon": 1}}, "'soon'"),
    ],
)
def test_senseless_ratios_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TaskConfig(loader=LoaderConfig(micro_batch=1, image_size=(8, 8)), **options)


def test_state_of_other_tasks_is_refused():
    with pytest.raises(ValueError, match="mixed the tasks a, this run has cls, dec, seg"):
        mix(cls=1).load_state_dict({"credits": {"a": 0.0}})
