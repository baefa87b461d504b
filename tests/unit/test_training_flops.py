"""The operations of training on an image: by hand, by torch's counter on timm's model, and what is frozen."""

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from ufo_large.models import Trunk
from ufo_large.models.lora import LoraConfig
from ufo_large.models.multitask import MultitaskModel
from ufo_large.planning.training_flops import TrainingFlops
from ufo_large.routing import ROUTERS
from ufo_large.tasks import HEADS
from ufo_large.testing.models import TINY_INFOS, TINY_TASKS, tiny_model, tiny_model_with

WIDTH, DEPTH, PATCH, SIDE, CLASSES = 48, 4, 8, 32, 5
TOKENS = (SIDE // PATCH) ** 2 + 1
BLOCK = 2 * TOKENS * WIDTH * (3 + 1 + 4 + 4) * WIDTH + 2 * 2 * TOKENS**2 * WIDTH
"""Queries, keys and values, the projection, the MLP; attention's two products."""
STEM = 2 * (TOKENS - 1) * 3 * PATCH**2 * WIDTH
HEAD = 2 * WIDTH * CLASSES


def flops(config: MultitaskModel.Config, task: str = "cls", size: tuple[int, int] = (SIDE, SIDE)) -> float:
    return TrainingFlops(config, TINY_TASKS).per_image(task, size)


def test_equals_the_value_worked_by_hand():
    """Three times the forward pass, but for the stem: nobody needs the gradient of its pixels."""
    assert flops(tiny_model("shared")) == 3 * (DEPTH * BLOCK + HEAD) + 2 * STEM


@pytest.mark.parametrize("setting", [{"checkpointing": "full"}, {"compile": True}])
def test_checkpointing_and_compilation_do_not_count(setting):
    assert flops(tiny_model("shared", **setting)) == flops(tiny_model("shared"))


def test_equals_torchs_counter_on_timms_own_model():
    """Real tensors of timm's model on the CPU, with attention as plain products."""
    shape = {"patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 3, "img_size": SIDE}
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, **shape)
    for block in vit.blocks:
        block.attn.fused_attn = False
    with FlopCounterMode(display=False) as counter:
        vit(torch.randn(3, 3, SIDE, SIDE)).sum().backward()
    assert flops(tiny_model("shared")) == counter.get_total_flops() / 3


def test_what_is_frozen_takes_its_forward_pass_alone():
    """Of a frozen trunk only the head has a backward pass, for its weight and, as built, for its input."""
    forward = DEPTH * BLOCK + STEM
    assert flops(tiny_model("shared", frozen=True)) == forward + 3 * HEAD
    assert flops(tiny_model("shared", frozen_blocks=1)) == forward + 2 * (DEPTH - 1) * BLOCK + 3 * HEAD
    lora = flops(tiny_model("shared", lora=LoraConfig()))
    assert forward + DEPTH * BLOCK < lora < flops(tiny_model("shared"))


def test_an_expert_per_task_costs_what_the_dense_trunk_costs():
    """An undecided choice counts as one path; of the experts per token all that it takes count."""
    dense, mlp = flops(tiny_model("shared")), 3 * 2 * TOKENS * 8 * WIDTH**2
    assert flops(tiny_model("task")) == dense
    assert flops(tiny_model("learned")) == dense
    banks = len(Trunk.Config.build(tiny_model("token_topk").trunk, ("cls",)).banks())
    topk = ROUTERS["token_topk"].Config()
    assert flops(tiny_model("token_topk")) == dense + banks * (topk.k - 1) * mlp


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "head"), [(kind, head) for kind, own in HEADS.items() for head in own])
def test_every_head_counts(kind, head):
    info = TINY_INFOS[kind]
    counter = TrainingFlops(tiny_model_with(kind, head), (info,))
    assert 0 < counter.per_image(info.name, (32, 32)) < counter.per_image(info.name, (32, 64))
