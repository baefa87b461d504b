"""The EoMT head and its queries in the trunk, against transformers' own model with the same weights."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import EomtConfig, EomtForUniversalSegmentation

from ufo_large.models import MultitaskModel
from ufo_large.models.checkpointing import CHECKPOINTING
from ufo_large.structures import TaskBatch
from ufo_large.tasks.class_masks import class_masks
from ufo_large.tasks.segmentation_eomt import EoMTSegmenter
from ufo_large.testing.models import TINY_INFOS, TINY_TASKS, tiny_batch, tiny_model, tiny_trunk

SEG = TINY_INFOS["segmentation"]
HEAD = EoMTSegmenter.Config(blocks=2, num_queries=5, num_points=64)


def make_model(head=HEAD, tasks=(SEG,), **trunk) -> MultitaskModel:
    """A model with no two parameters alike."""
    base = tiny_model()
    config = replace(base, trunk=tiny_trunk(**trunk), heads={**base.heads, "segmentation": head})
    torch.manual_seed(0)
    model = config.build(tasks)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def trunk_values(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give timm's values transformers' names; the class token has a position only in timm."""
    values = {
        "embeddings.cls_token": state["cls_token"] + state["pos_embed"][:, :1],
        "embeddings.register_tokens": torch.zeros(1, 0, 48),
        "embeddings.position_embeddings.weight": state["pos_embed"][0, 1:],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    for name, value in state.items():
        if name.startswith("blocks."):
            name = name.replace("blocks.", "layers.").replace("attn.proj", "attention.out_proj")
            if "attn.qkv" in name:
                for letter, part in zip("qkv", value.chunk(3), strict=True):
                    values[name.replace("attn.qkv", f"attention.{letter}_proj")] = part
            else:
                values[name] = value
    return values


def transformers_own(model: MultitaskModel) -> EomtForUniversalSegmentation:
    config = EomtConfig(
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=32,
        patch_size=8,
        num_register_tokens=0,
        num_blocks=HEAD.blocks,
        num_queries=HEAD.num_queries,
        train_num_points=HEAD.num_points,
        num_labels=SEG.num_classes,
    )
    theirs = EomtForUniversalSegmentation(config)
    values = {**trunk_values(model.trunk.vit.state_dict()), **model.heads["seg"].state_dict()}
    missing, unexpected = theirs.load_state_dict(values, strict=False)
    own = ("attn_mask_probs", "criterion.empty_weight")
    assert not unexpected and all(m in own or m.endswith("lambda1") for m in missing), (missing, unexpected)
    theirs.attn_mask_probs.zero_()  # masks of attention annealed to none, as at the end of their training
    return theirs.eval()


def inputs_of(model: MultitaskModel, batch: TaskBatch) -> dict:
    """What transformers' model wants of a batch: images as ours sees them, masks and classes per image."""
    targets = class_masks(batch.targets.masks_BHW, batch.images_BCHW.shape[-2:])
    masks, labels = (list(v.split(targets.per_image)) for v in (targets.masks_MHW, targets.labels_M))
    images_BCHW = model.trunk._normalise(batch.images_BCHW, batch.sizes_B2)
    return {"pixel_values": images_BCHW, "mask_labels": masks, "class_labels": labels}


def test_outputs_and_loss_are_transformers_own():
    model, batch = make_model(router="shared").eval(), tiny_batch(SEG)
    theirs, head = transformers_own(model), model.heads["seg"]
    outputs = model.outputs(batch)
    torch.manual_seed(5)
    ours = head.losses(outputs, batch)
    torch.manual_seed(5)
    expected = theirs(**inputs_of(model, batch))
    for name, value in (
        ("mask_logits", expected.masks_queries_logits),
        ("class_logits", expected.class_queries_logits),
    ):
        difference = (outputs[name][:, 0] - value).abs().max() / value.abs().max()
        assert difference < 1e-5, (name, difference)  # measured 1e-6
    torch.testing.assert_close(sum(ours.values()), expected.loss, atol=0, rtol=1e-4)


def test_predictions_before_every_block_are_transformers_own(monkeypatch):
    """The loss and its gradients; random points are the same wherever as many are drawn."""

    def same(*shape, device=None, **_):
        seed = torch.Generator().manual_seed(hash(shape) % 1000)
        return torch_rand(*shape, generator=seed)

    torch_rand = torch.rand
    monkeypatch.setattr(torch, "rand", same)
    model, batch = make_model(replace(HEAD, every_block=True), router="shared").train(), tiny_batch(SEG)
    theirs = transformers_own(model).train()
    expected = theirs(**inputs_of(model, batch)).loss
    found = sum(model(batch).values())
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-4)
    found.backward()
    expected.backward()
    ours, own = model.heads["seg"].query.weight.grad, theirs.query.weight.grad
    assert (ours - own).abs().max() < 1e-3 * own.abs().max()
    assert model.eval().outputs(batch)["mask_logits"].shape[1] == 1  # predicting costs no more


def gradients(model: MultitaskModel) -> dict[str, Tensor]:
    torch.manual_seed(3)
    model.zero_grad()
    sum(model(tiny_batch(SEG)).values()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("every_block", [False, True])
@pytest.mark.parametrize("mode", CHECKPOINTING)
def test_checkpointed_blocks_give_queries_the_same_gradients(mode, every_block):
    head = replace(HEAD, every_block=every_block)
    expected, found = gradients(make_model(head)), gradients(make_model(head, checkpointing=mode))
    assert found.keys() == expected.keys() and expected["heads.seg.query.weight"].abs().sum() > 0
    for name, gradient in expected.items():
        if every_block:  # gradients of one tensor are added in another order
            torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
        else:
            assert torch.equal(found[name], gradient), name


def test_queries_learn_above_and_inside_frozen_blocks():
    for frozen in (2, 3):
        found = gradients(make_model(router="shared", frozen_blocks=frozen))
        assert found["heads.seg.query.weight"].abs().sum() > 0
        assert not any(name.startswith("trunk.vit.blocks.0.") for name in found)


def test_other_tasks_see_no_queries():
    """Their outputs are those of a model whose segmentation head has none, bit for bit."""
    base = tiny_model().heads["segmentation"]
    with_queries, without = (
        make_model(tasks=TINY_TASKS).eval(),
        make_model(head=base, tasks=TINY_TASKS).eval(),
    )
    shared = {k: v for k, v in with_queries.state_dict().items() if not k.startswith(("heads.seg", "pyr"))}
    without.load_state_dict(shared, strict=False)
    batch = tiny_batch(TINY_TASKS[0])
    with_queries(tiny_batch(SEG), mode="predictions")
    found, expected = (m.outputs(batch)["logits_BK"] for m in (with_queries, without))
    assert torch.equal(found, expected)
    copy.deepcopy(with_queries)  # nothing of the pass with queries is left behind


def test_masks_cover_the_image_where_patches_are_no_multiple_of_four():
    """Patches of 14 pixels in four cells each way are 3.5 pixels."""
    model = make_model(patch_size=14, img_size=28)
    batch = tiny_batch(SEG, size=40)  # padded to 42
    losses = model(batch)
    assert model.heads["seg"].mask_stride == 3.5 and all(loss.isfinite() for loss in losses.values())
    assert all(p.mask_HW.shape == (40, 40) for p in model.eval().predict(batch))


@pytest.mark.parametrize(
    ("trunk", "message"),
    [
        ({"name": "eva02_tiny_patch14_224", "patch_size": 14, "img_size": 28}, "timm VisionTransformer"),
        ({"depth": 1}, "the trunk has 1 blocks"),
        ({"window": 2}, "trunk.window=2"),
        ({"frozen": True}, "trunk.frozen"),
    ],
)
def test_a_trunk_that_cannot_take_queries_is_refused(trunk, message):
    with pytest.raises(ValueError, match=message):
        make_model(router="shared", **trunk)
