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
from ufo_large.recipes import load_recipe
from ufo_large.train import planned as planned_module
from ufo_large.train.planned import planned

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

    def pretend(memory: float) -> None:
        gpu = replace(GPUS["h200"], name="pretended", memory=memory)
        monkeypatch.setattr(planned_module, "gpu_of", lambda device: gpu)

    return pretend


@pytest.fixture(scope="module")
def needed() -> float:
    sizes = sizes_of(CONFIG, NOWHERE)
    planner = Planner(CONFIG, sizes, Cluster(GPUS["h200"], 1), lambda _: DS, shardings=())
    return planner.plan(planner.asked).memory.needed


def test_a_processor_is_not_planned():
    assert planned(CONFIG, NOWHERE, DS, CPU, auto=False) is CONFIG
    with pytest.raises(ValueError, match="--auto plans for the memory of GPUs"):
        planned(CONFIG, NOWHERE, DS, CPU, auto=True)


def test_what_fits_trains_as_it_was_asked(card, needed):
    card(needed + 0.1 * GIB)
    assert planned(CONFIG, NOWHERE, DS, CPU, auto=False) == CONFIG
    assert planned(CONFIG, NOWHERE, DS, CPU, auto=True) == CONFIG


def test_what_does_not_fit_is_refused_with_what_does(card, needed):
    card(needed - 0.05 * GIB)
    with pytest.raises(
        ValueError, match=r"a step needs about .* this fits: --set .*; or let --auto"
    ) as refused:
        planned(CONFIG, NOWHERE, DS, CPU, auto=False)
    words = str(refused.value).partition("this fits: ")[2].partition(";")[0].split()
    fitting = apply_overrides(CONFIG, [word for word in words if word != "--set"])
    assert planned(fitting, NOWHERE, DS, CPU, auto=False) == fitting
    chosen = planned(CONFIG, NOWHERE, DS, CPU, auto=True)
    assert chosen != CONFIG and chosen.ds == CONFIG.ds
    unchecked = replace(CONFIG, check_memory=False)
    assert planned(unchecked, NOWHERE, DS, CPU, auto=False) == unchecked


def test_where_nothing_fits_that_is_said(card):
    card(0.5 * GIB)
    with pytest.raises(ValueError, match="nothing fits 1 x pretended.*check_memory=false"):
        planned(CONFIG, NOWHERE, DS, CPU, auto=False)
