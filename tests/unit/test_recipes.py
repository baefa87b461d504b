"""Every recipe builds its whole model, on the meta device; the large ones have the size they name."""

import importlib
import re
from pathlib import Path

import pytest
import torch

from ufo_large.config import apply_overrides
from ufo_large.distributed.ds_config import read_named
from ufo_large.planning.cluster import Cluster
from ufo_large.planning.gpus import GIB, GPUS
from ufo_large.planning.loads import sizes_of
from ufo_large.planning.plan import Planner
from ufo_large.planning.sizes import count
from ufo_large.recipes import known_recipes, load_recipe
from ufo_large.serving.one_size import require_possible
from ufo_large.testing.models import task_info
from ufo_large.train.run import warn_of_buckets, warn_of_unused_names

ROOT = Path(__file__).resolve().parents[2]
TASKS = (
    task_info("cls", "classification", 196),
    task_info("dec", "detection", 45),
    task_info("seg", "segmentation", 19),
)
MLPS = {
    "contest_vit_b": 6 * (2 * 768 * 3072 + 768 + 3072),
    "contest_vit_g": 20 * (2 * 1408 * 6144 + 1408 + 6144),
    "contest_vit_gigantic": 24 * (2 * 1664 * 8192 + 1664 + 8192),
}
DENSE = {"contest_vit_b": 86.6e6, "contest_vit_g": 1.01e9, "contest_vit_gigantic": 1.84e9}  # as published


@pytest.mark.parametrize("name", known_recipes())
def test_model_of_a_recipe(name):
    config = load_recipe(name)
    with torch.device("meta"):
        model = config.model.build(TASKS)
    assert set(model.heads) == {"cls", "dec", "seg"}
    if name in MLPS:  # two more copies of each MLP of the later half
        assert count(model.trunk) == pytest.approx(DENSE[name] + 2 * MLPS[name], rel=0.003)
        print(f"{name}: {count(model.trunk) / 1e9:.3f} B in the trunk, {count(model) / 1e9:.3f} B in all")


@pytest.mark.slow
@pytest.mark.parametrize("name", MLPS)
def test_the_figures_of_a_recipe_are_those_of_its_plan(name):
    module = importlib.import_module(f"ufo_large.recipes.{name}")
    text = " ".join(module.__doc__.split())
    told = re.search(
        r"(\d+) GiB per rank of 8 \((\d+) live\), ([\d.]+) s per step on H200, ([\d.]+) hours", text
    )
    config, cluster = load_recipe(name), Cluster(GPUS["h200"], 8)
    planner = Planner(config, sizes_of(config, None), cluster, lambda n: read_named(n, ROOT / "ds_configs"))
    plan = planner.plan(planner.asked)
    planned = (plan.memory.needed / GIB, plan.memory.live / GIB, plan.time.seconds, plan.hours)
    assert [float(value) for value in told.groups()] == pytest.approx(planned, rel=0.06)


def test_settings_for_no_task_of_the_data_are_told():
    config = apply_overrides(load_recipe("demo"), ["model.heads.sings=detr", "optimizer.head_rates.sgins=2"])
    signs = (task_info("signs", "detection", 4),)
    with pytest.warns(UserWarning) as seen:
        warn_of_unused_names(config, signs)
    told = [str(warning.message) for warning in seen]
    assert [t.partition(" ")[0] for t in told] == ["model.heads.sings", "optimizer.head_rates.sgins"]
    assert all("has no effect" in t and "Did you mean 'signs'" in t for t in told)


def test_canvases_that_only_training_sees_are_told():
    config = apply_overrides(load_recipe("demo"), ["tasks.detection.loader.shapes=aspect_buckets"])
    with pytest.warns(UserWarning) as seen:
        warn_of_buckets(config, TASKS)
    (told,) = (str(warning.message) for warning in seen)
    assert told.startswith("task 'dec' trains on canvases") and "at 96x144 alone" in told


def test_a_size_must_suit_the_tasks_that_are_asked_for():
    """Depth is shown at the size of its training alone; no other task is held to that."""
    config = load_recipe("demo_depth")
    depth = task_info("depth", "depth", 0)
    require_possible((64, 64), config, TASKS[:2])
    require_possible(config.task(depth).loader.image_size, config, [*TASKS[:2], depth])
    with pytest.raises(ValueError, match=r"task 'depth' was trained at \(128, 192\).*give \(128, 192\)"):
        require_possible((64, 64), config, [*TASKS[:2], depth])
