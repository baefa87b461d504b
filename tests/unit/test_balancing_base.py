"""What all balancers inherit: checks, reuse of weights, absent tasks, single tasks, options by name."""

import dataclasses

import numpy as np
import pytest
import torch

from ufo_large.balancing import METHODS, Balancer, Signals, method
from ufo_large.config import apply_overrides, choice
from ufo_large.data.mixing import TaskMix
from ufo_large.testing.balancing import TASKS, check_balancer, check_common_scale, random_gradients, signals

GRADIENTS_MN = random_gradients(4, 6, seed=0)
GRAM_MM = GRADIENTS_MN @ GRADIENTS_MN.T


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match="'pcgrd'. Did you mean 'pcgrad'.*aligned_mtl.*uncertainty"):
        method("pcgrd")


def test_a_recipe_picks_a_method_by_name():
    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Recipe:
        balancer: Balancer.Config = choice(METHODS, "tbgn")

    recipe = apply_overrides(Recipe(), ["balancer=cagrad", "balancer.c=0.2", "balancer.scale_private=true"])
    balancer = recipe.balancer.build(TASKS, 0)
    assert type(balancer) is METHODS["cagrad"] and balancer.config.c == 0.2 and balancer.scales_private


def test_scale_private_overrides_the_method():
    for name, cls in METHODS.items():
        assert cls.Config().build(TASKS, 0).scales_private == cls.scales_private, name
        assert cls.Config(scale_private=True).build(TASKS, 0).scales_private is True
        assert cls.Config(scale_private=False).build(TASKS, 0).scales_private is False


@pytest.mark.parametrize("name", METHODS)
def test_bad_options_are_refused(name):
    with pytest.raises(ValueError, match="every_k_steps=0"):
        METHODS[name].Config(every_k_steps=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tbgn", {"shares": {"cls": 0.0}}, "share of task 'cls' is 0.0"),
        ("tbgn", {"momentum": 1.0}, "momentum=1.0"),
        ("tbgn", {"floor": 2.0}, "floor=2.0"),
        ("tbgc", {"max_norm": 0.0}, "max_norm=0.0"),
        ("fixed", {"by_task": {"cls": -1.0}}, "fixed weight of task 'cls' is -1.0"),
        ("uncertainty", {"learning_rate": 0.0}, "learning_rate=0.0"),
        ("famo", {"decay": -1.0}, "decay=-1.0"),
        ("gradnorm", {"alpha": -1.0}, "alpha=-1.0"),
        ("dwa", {"window": 0}, "window=0"),
        ("dwa", {"temperature": 0.0}, "temperature=0.0"),
        ("stch", {"mu": 0.0}, "mu=0.0"),
        ("stch", {"warmup_steps": 0}, "warmup_steps=0"),
        ("db_mtl", {"beta": 1.0}, "beta=1.0"),
        ("go4align", {"num_groups": 0}, "num_groups=0"),
        ("gradvac", {"beta": 2.0}, "beta=2.0"),
        ("cagrad", {"c": 1.0}, "c=1.0"),
        ("fairgrad", {"alpha": 0.0}, "alpha=0.0"),
        ("autoscale", {"measure_steps": 0}, "measure_steps=0"),
    ],
)
def test_bad_options_of_a_method_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        METHODS[name].Config(**options)


def test_names_of_tasks_in_options_are_checked():
    for name, field in (
        ("fixed", "by_task"),
        ("tbgn", "shares"),
        ("autoscale", "shares"),
        ("fairgrad", "shares"),
    ):
        with pytest.raises(ValueError, match="unknown task 'sge'. Did you mean 'seg'"):
            METHODS[name].Config(**{field: {"sge": 1.0}}).build(TASKS, 0)


def test_tasks_of_a_step_must_be_a_subset_in_order():
    balancer = METHODS["fixed"].Config().build(TASKS, 0)
    for tasks in (("det", "cls"), ("cls", "boats"), ()):
        with pytest.raises(ValueError, match="not a subset, in order"):
            balancer(signals(tasks, [1.0] * len(tasks), torch.eye(len(tasks), dtype=torch.float64)))


def test_shapes_must_agree():
    balancer = METHODS["fixed"].Config().build(TASKS, 0)
    with pytest.raises(ValueError, match=r"4 tasks, losses \(3,\)"):
        balancer(signals(TASKS, [1.0] * 3, GRAM_MM))
    with pytest.raises(ValueError, match=r"4 tasks but a Gram matrix \(3, 3\)"):
        balancer(signals(TASKS, [1.0] * 4, GRAM_MM[:3, :3]))


def test_a_non_finite_gradient_is_named_by_its_diagonal():
    gram_MM = GRAM_MM.clone()
    gram_MM[1, :] = gram_MM[:, 1] = float("nan")
    with pytest.raises(ValueError, match="step 5: the gradient of task 'det' is not finite"):
        METHODS["fixed"].Config().build(TASKS, 0)(signals(TASKS, [1.0] * 4, gram_MM, step=5))


def test_a_negative_loss_is_refused_where_a_ratio_or_logarithm_needs_it():
    given = signals(TASKS, [1.0, -1.0, 1.0, 1.0], GRAM_MM)
    for name in ("dwa", "famo", "stch", "db_mtl", "go4align", "gradnorm"):
        with pytest.raises(ValueError, match="the loss of task 'det' is -1.0"):
            METHODS[name].Config().build(TASKS, 0)(given)


def test_a_task_without_a_weight_is_measured_out_of_turn():
    balancer = METHODS["mgda"].Config(every_k_steps=10).build(TASKS, 0)
    balancer(signals(TASKS[:2], [1.0, 1.0], GRAM_MM[:2, :2], step=0))
    assert not balancer.needs_measurement(1, TASKS[:2])
    assert balancer.needs_measurement(1, TASKS[:3])
    assert balancer.needs_measurement(1)


def test_each_company_of_tasks_is_measured_when_its_own_weights_are_old():
    """Steps of both tasks are all odd, measurements with k = 4 would all be even."""
    balancer, measured = METHODS["mgda"].Config(every_k_steps=4).build(TASKS[:2], 0), []
    for step in range(10):
        count = 1 + step % 2
        if balancer.needs_measurement(step, TASKS[:count]):
            measured.append(step)
        balancer(signals(TASKS[:count], [1.0] * count, GRAM_MM[:count, :count], step))
    assert measured == [0, 1, 4, 5, 8, 9]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "rlw"])
def test_where_nothing_changes_weights_of_earlier_steps_are_those_of_this_one(name):
    """Three tasks, each in three steps of four, one gradient a hundred times as long as the others."""
    tasks, lengths, losses = TASKS[:3], torch.tensor([1.0, 1.0, 100.0], dtype=torch.float64), [1.0, 1.0, 9.0]
    often, seldom = (METHODS[name].Config(every_k_steps=k).build(tasks, 0) for k in (1, 4))
    remembers = set(seldom.state_dict()) - {"method", "tasks", "generator", "measured"}
    mix, together = TaskMix(dict.fromkeys(tasks, [(0, 0.75)])), 0
    for step in range(40):
        present = [k for k, count in enumerate(mix.next(step).values()) if count]
        gram_MM = torch.diag(lengths[present] ** 2)
        given = signals(tuple(tasks[k] for k in present), [losses[k] for k in present], gram_MM, step)
        if not remembers:
            torch.testing.assert_close(seldom(given), often(given))
        elif {0, 1} <= set(present):
            weights = seldom(given)
            assert 0.5 < weights[0] / weights[1] < 2
        together += {0, 1} <= set(present)
    assert together > 10


def test_a_run_of_one_task_needs_no_measurement_unless_the_method_acts_alone():
    for name, cls in METHODS.items():
        balancer = cls.Config().build(("cls",), 0)
        assert balancer.needs_measurement(0) == (name in ("fixed", "tbgc")), name
    clipped = METHODS["tbgc"].Config(max_norm=2.0).build(("cls",), 0)
    gram_MM = torch.full((1, 1), 16.0, dtype=torch.float64)
    assert clipped(signals(("cls",), [1.0], gram_MM)).tolist() == [0.5]


def state_of_det(name: str, presence: list[tuple[int, ...]]) -> str:
    """Return, as text, what the method remembers of task `det` after steps with these tasks."""
    tasks, losses = ("cls", "det", "seg"), [1.0, 2.0, 3.0]
    balancer = METHODS[name].Config().build(tasks, 0)
    for step, present in enumerate(presence):
        index = list(present)
        given = [losses[i] / (1 + step) for i in index]
        balancer(signals(tuple(tasks[i] for i in index), given, GRAM_MM[index][:, index], step))
    state = balancer.state_dict()
    keys = balancer.state_names + tuple({"learned", "moments"} & set(state))
    return str([state[key].get("det") for key in sorted(keys)])


@pytest.mark.parametrize(
    "name",
    ["dwa", "uncertainty", "imtl_l", "famo", "gradnorm", "gradvac", "tbgn", "db_mtl", "stch", "autoscale"],
)
def test_steps_without_a_task_leave_its_state_alone(name):
    """A task that is away is not counted as zero: its numbers are those of its own steps."""
    everyone, without = (0, 1, 2), (0, 2)
    assert state_of_det(name, [everyone, without, without]) == state_of_det(name, [everyone])
    assert state_of_det(name, [everyone, everyone]) != state_of_det(name, [everyone])


def test_an_absent_task_does_not_change_what_the_others_draw():
    whole, gap = (METHODS["rlw"].Config().build(TASKS, 3) for _ in range(2))
    for step in range(5):
        expected_M = whole(signals(TASKS, [1.0] * 4, GRAM_MM, step))
        found_M = gap(signals(("cls", "seg"), [1.0] * 2, GRAM_MM[[0, 2]][:, [0, 2]], step))
        assert found_M[0] / found_M[1] == pytest.approx((expected_M[0] / expected_M[2]).item())


def test_the_state_of_another_method_is_refused():
    state = METHODS["dwa"].Config().build(TASKS, 0).state_dict()
    with pytest.raises(ValueError, match="the checkpoint's balancer is DWA, this run's is TBGN"):
        METHODS["tbgn"].Config().build(TASKS, 0).load_state_dict(state)


def test_the_state_of_other_tasks_is_refused():
    state = METHODS["dwa"].Config().build(TASKS, 0).state_dict()
    with pytest.raises(ValueError, match="balanced the tasks cls, det, seg, depth, this run has cls, det"):
        METHODS["dwa"].Config().build(TASKS[:2], 0).load_state_dict(state)


def test_a_state_that_does_not_tell_its_measurements_measures_anew():
    state = METHODS["pcgrad"].Config(every_k_steps=9).build(TASKS, 0).state_dict()
    del state["measured"]
    balancer = METHODS["pcgrad"].Config(every_k_steps=9).build(TASKS, 0)
    balancer.load_state_dict(state)
    assert balancer.needs_measurement(5, TASKS)


def test_state_dict_is_a_copy():
    balancer = METHODS["uncertainty"].Config().build(TASKS, 0)
    balancer(signals(TASKS, [1.0, 2.0, 3.0, 4.0], GRAM_MM))
    state = balancer.state_dict()
    kept = str(state)
    balancer(signals(TASKS, [1.0, 2.0, 3.0, 4.0], GRAM_MM, step=1))
    assert str(state) == kept


class WithoutNames(Balancer):
    """Deliberately wrong: keeps state by position and lets infinities through."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Balancer.Config):
        weight_of_first: float = 2.0

        def build(self, tasks, seed):
            return WithoutNames(tasks, seed, self)

    acts_alone = True

    def weights(self, given: Signals):
        weights_M = torch.ones(len(given.tasks), dtype=torch.float64)
        weights_M[0] = self.config.weight_of_first
        return weights_M


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (2.0, AssertionError, "plain: .* became"),
        (float("nan"), ValueError, "step 0: WithoutNames found the weights {'cls': nan"),
        (1.5, AssertionError, "became"),
    ],
)
def test_check_balancer_can_fail(weight, error, message):
    with pytest.raises(error, match=message):
        check_balancer(WithoutNames.Config(weight_of_first=weight))


def test_check_common_scale_can_fail():
    with pytest.raises(AssertionError, match=r"2 orthogonal tasks: \[1.001, 1.0\]"):
        check_common_scale(WithoutNames.Config(weight_of_first=1.001))


def test_a_problem_without_a_solution_is_told_with_its_step():
    class Unsolved(WithoutNames):
        def weights(self, given: Signals):
            raise np.linalg.LinAlgError("no weights found")

    with pytest.raises(ValueError, match="step 3: Unsolved: no weights found"):
        Unsolved(TASKS)(signals(TASKS, [1.0] * 4, GRAM_MM, step=3))
