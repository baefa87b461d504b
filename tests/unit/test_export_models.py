"""Networks cut out of a routed model run in timm as they ran inside."""

import pytest
import timm
import torch

from ufo_large.models.extract import write_timm_folder
from ufo_large.routing import ROUTERS
from ufo_large.testing.models import TINY_TASKS, tiny_batch, tiny_model


@pytest.fixture(params=["task", "task, all parts"])
def model(request):
    torch.manual_seed(0)
    model = tiny_model(request.param).build(TINY_TASKS).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@torch.no_grad()
def test_timm_loads_the_folder(model, tmp_path):
    line = write_timm_folder(model, "cls", tmp_path / "cls", (40, 44))
    dense = eval(line, {"timm": timm}).eval()
    batch = tiny_batch(TINY_TASKS[0])
    images = model.trunk._normalise(batch.images_BCHW, batch.sizes_B2)
    assert torch.equal(dense(images), model.outputs(batch)["logits_BK"])


ORIGINS = {"tiny": "vit_tiny_patch16_224.augreg_in21k_ft_in1k", "clip": "vit_base_patch16_clip_224.openai"}
ABOUT_THE_NETWORK = {"architecture", "first_conv", "classifier", "num_classes", "label_names", "custom_load"}
ABOUT_THE_INPUT = {"input_size", "fixed_input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std"}


@pytest.mark.parametrize("name", ORIGINS.values(), ids=ORIGINS)
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_the_timm_folder_describes_this_model_and_not_where_its_weights_began(name, keep_aspect, tmp_path):
    model = tiny_model("task", name=name).build(TINY_TASKS)
    notes = {"notes": ["padded"]} if keep_aspect else {}
    line = write_timm_folder(model, "cls", tmp_path, (40, 44), keep_aspect, license="mit", **notes)
    dense = eval(line, {"timm": timm})
    told = {key for key, value in dense.pretrained_cfg.items() if value is not None}
    assert told == ABOUT_THE_NETWORK | ABOUT_THE_INPUT | {"file", "source", "license", *notes}
    assert dense.pretrained_cfg["license"] == "mit"
    written = (tmp_path / "config.json").read_text()
    assert "http" not in written and name.split(".")[1] not in written
    assert dense.pretrained_cfg["label_names"] == list(TINY_TASKS[0].class_names)
    assert timm.data.resolve_model_data_config(dense) == {
        "input_size": (3, 40, 44),
        "interpolation": "bilinear",
        "mean": list(model.trunk.vit.pretrained_cfg["mean"]),
        "std": list(model.trunk.vit.pretrained_cfg["std"]),
        "crop_pct": 1.0,
        "crop_mode": "border" if keep_aspect else "squash",
    }


@torch.no_grad()
def test_timm_pads_to_whole_patches_as_the_trunk_does(model, tmp_path):
    """40 x 44 pixels, patches of 8: what timm's own transform gives goes straight in."""
    dense = eval(write_timm_folder(model, "cls", tmp_path / "cls", (40, 44)), {"timm": timm}).eval()
    batch = tiny_batch(TINY_TASKS[0], size=44)
    batch.images_BCHW, batch.sizes_B2 = batch.images_BCHW[:, :, :40], torch.tensor([[40, 44]] * 2)
    images = model.trunk._normalise(batch.images_BCHW, batch.sizes_B2)[..., :44]
    assert images.shape[-2:] == (40, 44)
    assert torch.equal(dense(images), model.outputs(batch)["logits_BK"])


RESIDUAL = {
    "plain": {},
    "SwiGLU": {"name": "vit_giant_patch14_dinov2"},
    "EVA": {"name": "eva_giant_patch14_224"},
    "SwiGLU in an Eva, of a multiple of 64 units": {"name": "vit_7b_patch16_dinov3"},
    "attention pooling, an odd ratio": {"name": "vit_so400m_patch14_siglip_224", "mlp_ratio": 3.7362},
}


@pytest.mark.parametrize("family", RESIDUAL)
@torch.no_grad()
def test_the_shared_mlp_and_the_experts_are_one_dense_mlp_in_timm(family, tmp_path):
    """One block of four is routed; the others get units of zeros. Measured: 1.0e-6, of 2.6."""
    torch.manual_seed(0)
    options = {"patch_size": 14, "img_size": 42, **RESIDUAL[family]}
    model = tiny_model(ROUTERS["residual"].Config(fraction=0.3), **options).build(TINY_TASKS).eval()
    for parameter in model.trunk.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    for task, info in (("cls", TINY_TASKS[0]), ("seg", TINY_TASKS[2])):
        line = write_timm_folder(model, task, tmp_path / task, (42, 42))
        dense = eval(line, {"timm": timm}).eval()
        batch = tiny_batch(info, size=42)
        found = dense(model.trunk._normalise(batch.images_BCHW, batch.sizes_B2))
        wanted = model.trunk(batch.images_BCHW, batch.sizes_B2, task).pooled_BD
        wanted = model.outputs(batch)["logits_BK"] if task == "cls" else wanted
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    widths = {block.mlp.fc2.in_features for block in dense.blocks}
    narrow = model.trunk.vit.blocks[0].mlp.fc2.in_features
    assert len(widths) == 1 and widths.pop() >= narrow + round(0.3 * narrow)


@torch.no_grad()
def test_a_distilled_model_gets_both_classifiers(tmp_path):
    """timm averages the outputs of two heads; measured difference: 1.2e-7."""
    model = tiny_model("task", name="deit_tiny_distilled_patch16_224").build(TINY_TASKS).eval()
    dense = eval(write_timm_folder(model, "cls", tmp_path / "cls", (40, 44)), {"timm": timm}).eval()
    batch = tiny_batch(TINY_TASKS[0])
    images = model.trunk._normalise(batch.images_BCHW, batch.sizes_B2)
    torch.testing.assert_close(dense(images), model.outputs(batch)["logits_BK"], atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_dense_task_leaves_its_head_behind(model, tmp_path):
    dense = eval(write_timm_folder(model, "seg", tmp_path / "seg", (32, 32)), {"timm": timm}).eval()
    batch = tiny_batch(TINY_TASKS[2])
    images = model.trunk._normalise(batch.images_BCHW, batch.sizes_B2)
    pooled = model.trunk(batch.images_BCHW, batch.sizes_B2, "seg").pooled_BD
    assert torch.equal(dense(images), pooled)


@torch.no_grad()
def test_positions_without_antialias_go_along(tmp_path):
    """5 x 6 patches where 4 x 4 are stored; timm, which knows antialias only, gets the final grid."""
    model = tiny_model("task", antialias=False).build(TINY_TASKS).eval()
    torch.nn.init.normal_(model.trunk.vit.pos_embed)
    torch.nn.init.normal_(model.heads["cls"].linear.weight)
    batch = tiny_batch(TINY_TASKS[0], size=44)
    batch.images_BCHW, batch.sizes_B2 = batch.images_BCHW[:, :, :40], torch.tensor([[40, 44]] * 2)
    logits_BK = model.outputs(batch)["logits_BK"]
    dense = eval(write_timm_folder(model, "cls", tmp_path, (40, 44)), {"timm": timm}).eval()
    images = model.trunk._normalise(batch.images_BCHW, batch.sizes_B2)[..., :44]
    assert torch.equal(dense(images), logits_BK)


def test_what_cannot_become_a_timm_model_is_said(tmp_path):
    windowed = tiny_model("task", window=3, global_blocks=(1,), depth=2).build(TINY_TASKS)
    with pytest.raises(ValueError, match="no windowed attention"):
        write_timm_folder(windowed, "seg", tmp_path, (40, 44))
    with pytest.raises(ValueError, match="no dense MLP equals that"):
        write_timm_folder(tiny_model("token_topk").build(TINY_TASKS), "cls", tmp_path, (32, 32))
