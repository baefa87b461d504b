"""The size table: published parameter counts, operations by formula, and the documentation's copy."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from ufo_large.models import Trunk
from ufo_large.planning.sizes import PRESETS, TASKS, count, forward_flops, size_table, trunk_size
from ufo_large.routing import PARTS, ROUTERS

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = {  # billions: dense, and with one shared and three task MLPs in every block
    "ViT-g/14": (1.01, 3.09),
    "ViT-G/14": (1.84, 5.77),
    "EVA-g/14": (1.01, None),
    "DINOv2-g/14": (1.14, None),
    "DINOv3-7B/16": (6.72, None),
}
TRAINING_TFLOP = {  # an image, forward + backward, worked out apart from this code
    "ViT-g/14": {(224, 224): 1.60, (504, 1022): 20.6, (1022, 1022): 51.5},
    "ViT-G/14": {(224, 224): 2.90, (504, 1022): 35.7, (1022, 1022): 86.1},
}


@pytest.fixture(scope="module")
def sizes() -> dict:
    return {preset: trunk_size(preset) for preset in PRESETS}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_parameters_are_as_published(sizes, preset):
    dense, routed = PUBLISHED[preset]
    assert sizes[preset].active / 1e9 == pytest.approx(dense, rel=0.005)
    if routed is not None:
        assert sizes[preset].parameters / 1e9 == pytest.approx(routed, rel=0.005)


@pytest.mark.parametrize("preset", TRAINING_TFLOP)
def test_operations_are_as_worked_out(sizes, preset):
    inputs = {"classification": (224, 224), "segmentation": (504, 1022), "detection": (1022, 1022)}
    for task, size in inputs.items():
        flops = 3 * sizes[preset].forward_flops[task] / 1e12
        assert flops == pytest.approx(TRAINING_TFLOP[preset][size], rel=0.005)


def test_the_whole_model_gives_the_same_as_one_and_two_blocks(sizes):
    config = Trunk.Config(name=PRESETS["ViT-B/16"], router=ROUTERS["learned"].Config(blocks=tuple(range(12))))
    with torch.device("meta"):
        routed = config.build(TASKS)
        dense = Trunk.Config(name=PRESETS["ViT-B/16"]).build(TASKS).eval()
    size = sizes["ViT-B/16"]
    assert (count(routed), count(dense) + 24) == (size.parameters, size.active)
    assert forward_flops(dense, (224, 224)) == size.forward_flops["classification"]


def test_experts_on_all_parts_are_counted_by_formula():
    """ViT-g: attention has four D x D matrices with biases; each norm and each bias is a vector."""
    width, hidden, depth, vectors = 1408, 6144, 40, 2
    attention, norms = 4 * width * width + 4 * width, 2 * vectors * width
    mlp = 2 * width * hidden + hidden + width
    size, dense = trunk_size("ViT-g/14", {}, PARTS), trunk_size("ViT-g/14", {}, ("mlp",))
    choices = 2 * len(TASKS) * 4  # two logits; attention, MLP and two norms choose
    assert size.parameters == dense.active - 2 * depth + depth * (3 * (attention + norms + mlp) + choices)
    assert size.active == dense.active + depth * 2 * 3


def test_the_documentation_holds_the_printed_table(sizes):
    assert size_table(sizes.values()) in (ROOT / "docs" / "models.md").read_text()


def test_the_command_ends_with_json(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["plan.py", "--models", "--json"])
    runpy.run_path(str(ROOT / "launchers" / "plan.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    models = {m["preset"]: m for m in json.loads(lines[-1])["models"]}
    assert set(models) == set(PRESETS)
    assert lines[0].startswith("| trunk |")
