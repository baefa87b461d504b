"""The contest's recipes take two steps at toy width with their own depth, heads and DeepSpeed JSON."""

import json
from pathlib import Path

import pytest
import timm

from ufo_large.models.hub_names import hub_name
from ufo_large.recipes import known_recipes, load_recipe
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.settings import IN_THE_PROCESS, NO_WANDB

CONTEST = [name for name in known_recipes() if name.startswith("contest_")]
KINDS = ("classification", "detection", "segmentation")
DECODER = {"width": 32, "layers": 3, "heads": 2, "feedforward": 64, "num_queries": 12}
TOY = (
    *("steps=2", "pretrained=none", NO_WANDB, *IN_THE_PROCESS, "model.pyramid_width=32"),
    *("model.trunk.embed_dim=32", "model.trunk.num_heads=2"),
    *(f"model.heads.{kind}.{k}={v}" for kind in KINDS[1:] for k, v in DECODER.items()),
    *(f"tasks.{kind}.loader.image_size=56,56" for kind in KINDS),
    *(f"tasks.{kind}.loader.micro_batch=2" for kind in KINDS),
)


def two_steps(recipe: str, shards: str, workdir: str) -> int:
    """Train on a rank; return the number of finished steps."""
    from ufo_large.config import apply_overrides
    from ufo_large.distributed import ds_config
    from ufo_large.train.run import train

    config = apply_overrides(load_recipe(recipe), TOY)
    ds = ds_config.read_named(config.ds, Path(__file__).resolve().parents[2] / "ds_configs")
    return train(config, shards, Path(workdir), ds).finished


SMALLEST = "contest_vit_b"
BY_COST = [pytest.param(name, marks=() if name == SMALLEST else pytest.mark.slow) for name in CONTEST]


@pytest.mark.parametrize("recipe", BY_COST)
def test_two_steps_at_toy_width(recipe, tiny_shards, tmp_path):
    assert run_ranks(two_steps, 2, recipe, str(tiny_shards), str(tmp_path / "run")) == [2, 2]
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["step"] == 2
    assert (tmp_path / "run/weights").exists()


@pytest.mark.parametrize("recipe", CONTEST)
def test_timm_publishes_the_weights_for_the_trunk(recipe):
    config = load_recipe(recipe)
    name = hub_name(config.pretrained, config.model.trunk)
    assert timm.get_pretrained_cfg(name.repo.removeprefix("timm/")).hf_hub_id == name.repo
