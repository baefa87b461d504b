"""The learning rate by hand."""

import pytest

from ufo_large.runs.schedule import Schedule


def test_warms_up_linearly_then_falls_by_a_cosine():
    schedule = Schedule(warmup_steps=4, final_share=0.1)
    factors = [schedule.factor(step, 15) for step in range(15)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert factors[9] == pytest.approx(0.55)  # half way: the mean of 1 and 0.1
    assert factors[14] == pytest.approx(0.1)
    assert factors[4:] == sorted(factors[4:], reverse=True)


def test_one_step_run():
    assert Schedule().factor(0, 1) == 1.0


@pytest.mark.parametrize("options", [{"warmup_steps": -1}, {"final_share": 1.5}])
def test_bad_values(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Schedule(**options)
