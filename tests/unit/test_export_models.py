"""Networks cut out of a routed model run in timm and in onnxruntime as they ran inside."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import ufo_large
from ufo_large.models.checkpointing import CHECKPOINTING
from ufo_large.models.extract import write_timm_folder
from ufo_large.models.onnx_export import OnnxNetwork, check_onnx, export_onnx
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
    line = write_timm_folder(model, "cls", tmp_path, (40, 44), keep_aspect)
    dense = eval(line, {"timm": timm})
    told = {key for key, value in dense.pretrained_cfg.items() if value is not None}
    notes = {"notes"} if keep_aspect else set()
    assert told == ABOUT_THE_NETWORK | ABOUT_THE_INPUT | {"file", "source"} | notes
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


def test_onnx_of_a_shared_mlp_and_an_expert(tmp_path):
    pytest.importorskip("onnxruntime")
    model = tiny_model("residual").build(TINY_TASKS).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    export_onnx(model, "cls", (40, 44), tmp_path / "cls.onnx")
    assert check_onnx(model, "cls", tmp_path / "cls.onnx") < 1e-4


@pytest.mark.parametrize("task", ["cls", "seg"])
def test_onnx_predicts_as_the_model_does(model, tmp_path, task):
    """Against the model itself, at a size that is no multiple of the patch."""
    onnxruntime = pytest.importorskip("onnxruntime")
    info = next(t for t in TINY_TASKS if t.name == task)
    path = tmp_path / f"{task}.onnx"
    export_onnx(model, task, (40, 44), path)
    assert check_onnx(model, task, path) < 1e-4
    batch = tiny_batch(info, num_images=3, size=44)
    batch.images_BCHW, batch.sizes_B2 = batch.images_BCHW[:, :, :40], torch.tensor([[40, 44]] * 3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"images": batch.images_BCHW.numpy()})
    if task == "cls":
        expected = np.stack([p.scores_K for p in model.predict(batch)])
        assert abs(output - expected).max() < 1e-5
    else:
        logits = model.outputs(batch)["logits_BKHW"]
        assert output.shape == (3, 40, 44) and output.max() < logits.shape[1]


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
    network = OnnxNetwork(model, "cls", (40, 44)).eval()
    torch.testing.assert_close(network(batch.images_BCHW), logits_BK.softmax(-1), atol=1e-6, rtol=0)
    pytest.importorskip("onnxruntime")
    export_onnx(model, "cls", (40, 44), tmp_path / "cls.onnx")
    assert check_onnx(model, "cls", tmp_path / "cls.onnx") < 1e-4


def test_onnx_holds_nothing_of_the_machine_or_of_the_other_tasks(model, tmp_path):
    """The exporter writes a stack trace to every node and the whole model's parameter names to the graph."""
    onnx = pytest.importorskip("onnx")
    export_onnx(model, "cls", (32, 32), tmp_path / "cls.onnx")
    written = (tmp_path / "cls.onnx").read_bytes()
    assert str(Path(ufo_large.__file__).parent).encode() not in written
    assert b"heads.dec" not in written and b"heads.seg" not in written
    graph = onnx.load(tmp_path / "cls.onnx").graph
    assert not any(part.metadata_props for part in [graph, *graph.node, *graph.input, *graph.output])


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_windows_and_checkpointing_go_along(checkpointing, tmp_path):
    """Five by six patches in windows of three; timm, which has none, refuses."""
    pytest.importorskip("onnxruntime")
    windows = {"window": 3, "global_blocks": (1,), "depth": 2}
    model = tiny_model("task", checkpointing=checkpointing, **windows).build(TINY_TASKS).eval()
    export_onnx(model, "seg", (40, 44), tmp_path / "seg.onnx")
    assert check_onnx(model, "seg", tmp_path / "seg.onnx") < 1e-3
    with pytest.raises(ValueError, match="no windowed attention"):
        write_timm_folder(model, "seg", tmp_path, (40, 44))
    with pytest.raises(ValueError, match="at least one pixel"):
        export_onnx(model, "seg", (0, 44), tmp_path / "seg.onnx")


def test_what_cannot_become_onnx_is_said(model, tmp_path):
    with pytest.raises(ValueError, match="'dec': FCOSDetector cannot become ONNX"):
        export_onnx(model, "dec", (32, 32), tmp_path / "dec.onnx")
    sparse = tiny_model("token_topk").build(TINY_TASKS)
    for write in (
        lambda m, t, p: write_timm_folder(m, t, p, (32, 32)),
        lambda m, t, p: export_onnx(m, t, (32, 32), p),
    ):
        with pytest.raises(ValueError, match="no dense MLP equals that"):
            write(sparse, "cls", tmp_path / "sparse")
