"""A few seeded faults; `make faults` tries hundreds."""

import contextlib
import random

import pytest

from ufo_large.testing.fault_runs import FaultRun
from ufo_large.testing.faults import FAULTS, START_S, try_fault
from ufo_large.testing.tiny_shards import tiny_shards

FEW = ("kill a rank during a save", "flip a bit of a checkpoint", "cut a shard off")
REST = tuple(name for name in FAULTS if name not in FEW)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Shards, and the final weights of a run to which nothing happened."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shards = tiny_shards(folder / "data")
    run = FaultRun(shards, folder)
    run.start()
    assert run.wait(START_S) == [0, 0], run.told()[-3000:]
    return shards, run.weights()


def check(name: str, undisturbed, folder) -> None:
    shards, reference = undisturbed
    fault, rng = FAULTS[name], random.Random(name)
    with contextlib.ExitStack() as held:
        try:
            hosts = held.enter_context(fault.place(folder / "trial"))
        except RuntimeError as error:
            pytest.skip(str(error))
        trial = try_fault(fault, shards, folder / "trial", rng, reference, hosts)
    told = trial.told[-3000:]
    assert trial.detected and trial.ended_s is not None and trial.is_exact, told
    assert trial.left == 0 and trial.lost_steps <= 4, told


@pytest.mark.parametrize("name", FEW)
def test_a_fault_costs_no_more_than_the_steps_since_the_last_save(name, undisturbed, tmp_path):
    check(name, undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_the_other_faults(name, undisturbed, tmp_path):
    check(name, undisturbed, tmp_path)
