"""One golden table: every method's weights on a fixed run, so that a change of any number is seen.

Rewrite it with `python tests/numerics/test_balancing_golden.py` and say in the commit why it changed.
"""

import json
from pathlib import Path

import pytest

from ufo_large.balancing import METHODS
from ufo_large.testing.balancing import random_gradients, signals

GOLDEN = Path(__file__).parents[1] / "golden" / "balancing.json"
TASKS = ("cls", "det", "seg")
SETTINGS = {  # short memories, so that a run of eight steps passes through every phase
    "dwa": {"window": 2},
    "stch": {"warmup_steps": 2},
    "autoscale": {"skip_steps": 1, "measure_steps": 3},
    "fixed": {"by_task": {"det": 0.5}},
    "tbgn": {"shares": {"seg": 2.0}, "momentum": 0.8},
}


def run_of(name: str) -> list[list[float]]:
    """Return the weights of eight steps; the sixth goes without `det`."""
    balancer = METHODS[name].Config(**SETTINGS.get(name, {})).build(TASKS, 0)
    weights = []
    for step in range(8):
        index = [0, 2] if step == 5 else [0, 1, 2]
        gradients_MN = random_gradients(3, 5, seed=100 + step)[index]
        losses = [[3.0, 1.0, 0.5][i] * (1 - 0.1 * (i + 1) * step / 8) for i in index]
        given = signals(tuple(TASKS[i] for i in index), losses, gradients_MN @ gradients_MN.T, step)
        weights.append(balancer(given).tolist())
    return weights


def test_the_table_names_every_method():
    assert sorted(json.loads(GOLDEN.read_text())) == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_those_of_the_table(name):
    """The tolerance leaves room for another processor's rounding in the solvers."""
    golden = json.loads(GOLDEN.read_text())[name]
    for expected, found in zip(golden, run_of(name), strict=True):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


if __name__ == "__main__":
    rows = ",\n".join(
        f'"{name}": [\n'
        + ",\n".join("  " + json.dumps([round(w, 12) for w in row]) for row in run_of(name))
        + "]"
        for name in METHODS
    )
    GOLDEN.write_text("{\n" + rows + "\n}\n")
    print(f"wrote {GOLDEN}")
