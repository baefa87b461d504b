"""Training asks the planner before its first step: on a card whose memory is pretended."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ufo_large.config import apply_overrides
from ufo_large.distributed import ds_config
from ufo_large.planning.cluster import Cluster
from ufo_large.planning.gpus import GIB, GPUS
from ufo_large.planning.loads import sizes_of
from ufo_large.planning.plan import Planner
from ufo_large.processes.heartbeat import HEARTBEAT
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import RunFolder
from ufo_large.tracking import read_metrics
from ufo_large.tracking.plan_check import read_plan_check, save_plan
from ufo_large.train import planned as planned_module
from ufo_large.train.planned import Planned, going_on, machines, planned

ROOT = Path(__file__).resolve().parents[2]
CPU, NOWHERE = torch.device("cpu"), "no/such/shards"
DEMO = apply_overrides(
    load_recipe("demo"),
    ["model.trunk.checkpointing=none", "ds=zero3_bf16", "tasks.classification.loader.micro_batch=1024"],
)
CONFIG = replace(DEMO, tasks={"classification": DEMO.tasks["classification"]})
DS = ds_config.read_named("zero3_bf16", ROOT / "ds_configs")


@pytest.fixture
def card(monkeypatch):
    """Return a function that pretends a GPU of so many bytes."""

    def pretend(memory: float, kind: str = "H200") -> None:
        gpu = replace(GPUS["h200"], name="pretended", memory=memory, card=kind)
        monkeypatch.setattr(planned_module, "gpu_of", lambda device: gpu)

    return pretend


@pytest.fixture(scope="module")
def needed() -> float:
    sizes = sizes_of(CONFIG, NOWHERE)
    planner = Planner(CONFIG, sizes, Cluster(GPUS["h200"], 1), lambda _: DS, shardings=())
    return planner.plan(planner.asked).memory.needed


def test_a_processor_is_not_planned():
    assert planned(CONFIG, NOWHERE, DS, CPU, auto=False) == Planned(CONFIG)
    with pytest.raises(ValueError, match="--auto plans for the memory of GPUs"):
        planned(CONFIG, NOWHERE, DS, CPU, auto=True)


def test_what_fits_trains_as_it_was_asked(card, needed):
    card(needed + 0.1 * GIB)
    assert planned(CONFIG, NOWHERE, DS, CPU, auto=False).config == CONFIG
    assert planned(CONFIG, NOWHERE, DS, CPU, auto=True).config == CONFIG
    assert HEARTBEAT.last is None  # a download that follows is no hang


def test_what_does_not_fit_is_refused_with_what_does(card, needed):
    card(needed - 0.05 * GIB)
    with pytest.raises(
        ValueError, match=r"a step needs about .* this fits: --set .*; or let --auto"
    ) as refused:
        planned(CONFIG, NOWHERE, DS, CPU, auto=False)
    words = str(refused.value).partition("this fits: ")[2].partition(";")[0].split()
    fitting = apply_overrides(CONFIG, [word for word in words if word != "--set"])
    assert planned(fitting, NOWHERE, DS, CPU, auto=False).config == fitting
    chosen = planned(CONFIG, NOWHERE, DS, CPU, auto=True).config
    assert chosen != CONFIG and chosen.ds == CONFIG.ds
    unchecked = replace(CONFIG, check_memory=False)
    assert planned(unchecked, NOWHERE, DS, CPU, auto=False) == Planned(unchecked)


def test_a_run_that_goes_on_keeps_what_it_began_with(card, needed, tmp_path):
    """On a card with room for the recipe as it is, and on one that its own settings do not fit."""
    folder = RunFolder(tmp_path)
    begun = apply_overrides(
        CONFIG,
        [
            "model.trunk.checkpointing=full",
            "tasks.classification.loader.micro_batch=512",
            "tasks.classification.micro_batches=2",
        ],
    )
    folder.write(begun, sizes_of(CONFIG, NOWHERE).tasks, "0", NOWHERE, DS)
    assert going_on(folder, "auto") is None  # no checkpoint: the run starts anew, and is planned anew
    (folder.checkpoints / "step-00000001").mkdir(parents=True)
    (folder.checkpoints / "step-00000001" / "complete.json").touch()
    assert going_on(folder, "none") is None
    saved = going_on(folder, "auto")
    assert saved == begun
    longer = replace(CONFIG, steps=2 * CONFIG.steps)
    card(needed + 0.1 * GIB)
    went_on = planned(longer, NOWHERE, DS, CPU, auto=True, saved=saved)
    assert went_on.config == replace(begun, steps=longer.steps)
    assert went_on.plan["checkpointing"] == "full"
    card(0.6 * GIB)
    with pytest.raises(ValueError, match="a step needs about .*keeps the checkpointing .*give it more GPUs"):
        planned(longer, NOWHERE, DS, CPU, auto=True, saved=saved)


def test_the_plan_lies_in_the_run_and_stands_in_its_report(card, needed, tmp_path):
    card(needed + 0.1 * GIB)
    plan = planned(CONFIG, NOWHERE, DS, CPU, auto=False).plan
    save_plan(tmp_path, plan, finished=0)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/peak_memory_gib": 2.5}\n')
    (memory, time, _) = read_plan_check(tmp_path, read_metrics(tmp_path / "metrics.jsonl")).tables
    rows = {row.name: row for row in (*memory[2], *time[2])}
    assert rows["live at most"].measured == 2.5
    assert rows["live at most"].planned == plan["memory"]["live"] / GIB
    assert rows["a step"].planned == plan["step_seconds"]


@pytest.mark.parametrize(("local_ranks", "count"), [([0, 1, 0, 1], 2), ([3], 1), ([0, 1, 0], 1)])
def test_machines_are_counted_by_their_first_ranks(local_ranks, count):
    assert machines(local_ranks) == count


def test_of_a_gpu_that_is_not_known_no_time_is_told(card, needed):
    card(needed + 0.1 * GIB, kind="")
    plan = planned(CONFIG, NOWHERE, DS, CPU, auto=False).plan
    assert plan["memory"]["live"] and plan["time"] is None and plan["step_seconds"] is None


def test_where_nothing_fits_that_is_said(card):
    card(0.5 * GIB)
    with pytest.raises(ValueError, match="nothing fits 1 x pretended.*check_memory=false"):
        planned(CONFIG, NOWHERE, DS, CPU, auto=False)
