"""Weights in and out: timm's files into the routed trunk, dense networks out of it."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_patch_embed

from ufo_large.distributed.checkpoint import load_weights
from ufo_large.evaluation.loading import load_model
from ufo_large.models import Trunk
from ufo_large.models.dense_values import PretrainedValues, keep_stored_grid, read_tensors
from ufo_large.models.extract import dense_trunk_state, single_task_state
from ufo_large.models.lora import LoraConfig
from ufo_large.models.weights import dense_names, fill, initial_state
from ufo_large.routing import ROUTERS
from ufo_large.structures import role_of
from ufo_large.testing.models import ROUTED, TINY_TASKS, task_info, tiny_batch, tiny_model, tiny_trunk

REAL = Path(os.environ.get("UFO_WEIGHTS", Path(__file__).resolve().parents[2] / "../shared/weights"))
REAL /= "vit_small_patch14_dinov2.safetensors"
SMALL = {"depth": 4, "embed_dim": 48, "num_heads": 3, "patch_size": 8}
FAMILIES = {
    "vit": ("vit_tiny_patch16_224", {}),
    "dinov2": ("vit_giant_patch14_reg4_dinov2", {}),
    "eva02": ("eva02_large_patch14_224", {}),
    "siglip": ("vit_base_patch16_siglip_224", {}),
}


def theirs(name: str = "vit_tiny_patch16_224", **options) -> torch.nn.Module:
    torch.manual_seed(7)
    return timm.create_model(name, **{**SMALL, "img_size": 32, "num_classes": 11, **options})


def ours(name: str = "vit_tiny_patch16_224", router: str = "task", **trunk):
    return tiny_model(router, name=name, **trunk).build(TINY_TASKS)


def tokens(vit: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    return vit.eval().forward_features(images)


@pytest.mark.parametrize("kind", ["safetensors", "torch", "nested", "folder"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_timm_file_fills_the_trunk_and_its_experts(family, kind, tmp_path):
    name, _ = FAMILIES[family]
    source = theirs(name)
    path = tmp_path / {"safetensors": "m.safetensors", "folder": "model.safetensors"}.get(kind, "m.pth")
    if kind in ("safetensors", "folder"):
        save_file(source.state_dict(), path)
    else:
        torch.save(source.state_dict() if kind == "torch" else {"state_dict": source.state_dict()}, path)
    model = ours(name, "task, all parts")
    fill(model, initial_state(model, seed=0, pretrained=tmp_path if kind == "folder" else path))
    images = torch.randn(1, 3, 32, 32)
    for task in ("cls", "dec", "seg"):
        dense = timm.create_model(name, **SMALL, img_size=32, num_classes=0)
        dense.load_state_dict(dense_trunk_state(model.trunk, task))
        assert torch.equal(tokens(dense, images), tokens(source, images))


def test_positions_are_resampled_to_the_models_grid(tmp_path):
    save_file(theirs(img_size=64).state_dict(), tmp_path / "m.safetensors")
    model = ours()
    fill(model, initial_state(model, seed=0, pretrained=tmp_path / "m.safetensors"))
    expected = timm.create_model(
        "vit_tiny_patch16_224",
        **SMALL,
        img_size=32,
        num_classes=0,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "m.safetensors"), "num_classes": 11},
    )
    assert torch.equal(model.trunk.vit.pos_embed, expected.pos_embed)


def test_every_wrong_name_is_listed(tmp_path):
    state = theirs().state_dict()
    state["blocks.9.norm1.weight"] = state.pop("blocks.1.norm1.weight")
    state["blocks.0.mlp.fc1.bias"] = torch.zeros(7)
    save_file(state, tmp_path / "m.safetensors")
    model = ours()
    with pytest.raises(ValueError, match="3 problems") as error:
        fill(model, initial_state(model, seed=0, pretrained=tmp_path / "m.safetensors"))
    for line in (
        "blocks.9.norm1.weight: not a parameter",
        "blocks.1.norm1.weight: missing",
        "blocks.0.mlp.fc1.bias: shape [7], but the model's is [192]",
    ):
        assert line in str(error.value)


def test_a_file_that_is_no_weights_is_named(tmp_path):
    model = ours()
    for name, content in (("a.safetensors", b"no"), ("b.pth", b"no"), ("c.safetensors", None), ("", None)):
        path = tmp_path / "weights" / name
        path.parent.mkdir(exist_ok=True)
        if content is not None:
            path.write_bytes(content)
        elif not name:
            path = tmp_path / "empty"
            path.mkdir()
        with pytest.raises(ValueError, match=path.name):
            next(initial_state(model, seed=0, pretrained=path))


def test_a_file_of_something_else_is_named(tmp_path):
    """Whole modules, lists, and a model that timm cannot convert: its class token has no position."""
    other = theirs("vit_giant_patch14_reg4_dinov2", img_size=32)
    held = {"model.pth": theirs(), "list.pth": [torch.zeros(3)], "dinov2.pth": other.state_dict()}
    said = (r"model\.pth: holds other obj", r"list\.pth: holds a list", r"dinov2\.pth .* cannot convert it")
    for (name, content), message in zip(held.items(), said, strict=True):
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match=message):
            next(initial_state(ours(), seed=0, pretrained=tmp_path / name))


@pytest.mark.parametrize(
    ("held", "name", "said"),
    [
        ({}, "vit_small_patch16_224", "width 192.*but the trunk's is of width 384.*{fits}"),
        ({"depth": 5}, "vit_tiny_patch16_224", "depth 5,.*but.*depth 12.*embed_dim, depth and patch_size"),
        ({"patch_size": 32}, "vit_tiny_patch16_224", "of 32.*but.*of 16.*or model.trunk.patch_size=16 to"),
    ],
    ids=["width", "depth", "patch"],
)
def test_a_vit_of_another_shape_is_named_with_what_it_fits(held, name, said, tmp_path):
    with torch.device("meta"):
        shapes = timm.create_model("vit_tiny_patch16_224", **held).state_dict()
    torch.save({n: torch.zeros(1).expand(v.shape) for n, v in shapes.items()}, tmp_path / "vit.pth")
    fits = r"set model\.trunk\.name=vit_tiny_patch16_224 or vit_tiny_patch16_384"
    with pytest.raises(ValueError, match=f"vit.pth does not hold.*{said.format(fits=fits)}"):
        PretrainedValues(Trunk.Config(name=name), tmp_path / "vit.pth")


def test_a_file_of_another_family_is_named_with_what_it_fits(tmp_path):
    """CLIP's ViT has the shape of a plain one, and a norm before its blocks."""
    with torch.device("meta"):
        shapes = timm.create_model("vit_base_patch16_224").state_dict()
    torch.save({n: torch.zeros(1).expand(v.shape) for n, v in shapes.items()}, tmp_path / "vit.pth")
    said = r"\(set model.trunk.name=vit_base_patch16_224 or .*norm_pre.weight: missing"
    with pytest.raises(ValueError, match=f"(?s){said}"):
        PretrainedValues(Trunk.Config(name="vit_base_patch16_clip_224"), tmp_path / "vit.pth")


def test_a_named_patch_size_has_the_patch_embedding_resampled(tmp_path):
    """Positions stay: the grid is the same, of smaller patches."""
    source = theirs(img_size=64, patch_size=16)
    save_file(source.state_dict(), tmp_path / "m.safetensors")
    values = PretrainedValues(tiny_trunk(), tmp_path / "m.safetensors")
    wanted = resample_patch_embed(source.patch_embed.proj.weight, [8, 8])
    assert torch.equal(values("patch_embed.proj.weight"), wanted)
    assert torch.equal(values("pos_embed"), source.pos_embed)


def wrapped(prefix: str, **others) -> dict:
    return {f"{prefix}{n}": v for n, v in theirs().state_dict().items()} | others


@pytest.mark.parametrize(
    "held",
    [
        {"model": {}, "model_ema": wrapped("")},
        {"state_dict": {}, "state_dict_ema": wrapped("module.")},
        {"module": wrapped("")},
        {"encoder": wrapped("module."), "predictor": {}},
        wrapped("_orig_mod.module."),
        {"state_dict": wrapped("model.backbone.", **{"model.head.weight": torch.zeros(3)}), "epoch": 3},
        {"student": {}, "teacher": wrapped("backbone.", **{"head.mlp.weight": torch.zeros(3)})},
    ],
    ids=["ema", "timm's ema", "deepspeed", "i-jepa", "compiled", "lightning", "dino"],
)
def test_what_trainers_wrap_around_a_vit_is_taken_off(held, tmp_path):
    torch.save(held, tmp_path / "m.pth")
    values = PretrainedValues(tiny_trunk(), tmp_path / "m.pth")
    assert all(torch.equal(values(n), v) for n, v in theirs().named_parameters() if n.startswith("blocks."))


def test_the_layer_scale_of_deit_iii_as_its_authors_published_it(tmp_path):
    """timm binds the option that renames it where it makes the model."""
    vit = theirs("deit3_small_patch16_224")
    published = {
        n.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v
        for n, v in vit.state_dict().items()
    }
    assert "blocks.0.gamma_1" in published
    torch.save({"model": published}, tmp_path / "deit.pth")
    values = PretrainedValues(tiny_trunk(name="deit3_small_patch16_224"), tmp_path / "deit.pth")
    assert torch.equal(values("blocks.1.ls2.gamma"), vit.blocks[1].ls2.gamma)


def test_patches_of_flexivit_are_resampled_as_timm_does_for_it(tmp_path):
    source = theirs("flexivit_small", img_size=64, patch_size=16)
    save_file(source.state_dict(), tmp_path / "m.safetensors")
    values = PretrainedValues(tiny_trunk(name="flexivit_small"), tmp_path / "m.safetensors")
    weight = source.patch_embed.proj.weight
    wanted = resample_patch_embed(weight, [8, 8], interpolation="bilinear", antialias=False)
    assert torch.equal(values("patch_embed.proj.weight"), wanted)
    assert not torch.equal(wanted, resample_patch_embed(weight, [8, 8]))


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "vit_giant_patch14_dinov2"])
def test_a_file_of_dinov2_as_its_authors_published_it_is_named(name, tmp_path):
    """Each candidate converts the file, and timm's conversion takes tensors out of what it is given."""
    with torch.device("meta"):
        vit = timm.create_model(name, num_classes=0)
    state = {n: torch.zeros(1).expand(v.shape) for n, v in vit.state_dict().items()}
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([state["cls_token"], state["pos_embed"]], 1)
    gated = (
        hasattr(vit.blocks[0].mlp, "fc1")
        and vit.blocks[0].mlp.fc1.out_features != vit.blocks[0].mlp.fc2.in_features
    )
    if gated:
        state = {n.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v for n, v in state.items()}
    torch.save({**state, "mask_token": torch.zeros(1, 1)}, tmp_path / "dinov2.pth")
    with pytest.raises(ValueError, match=rf"set model\.trunk\.name=(?:.* or )?{name}"):
        PretrainedValues(Trunk.Config(name="vit_small_patch14_dinov2"), tmp_path / "dinov2.pth")


def test_files_of_old_torch_are_read(tmp_path):
    state = theirs().state_dict()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    values = PretrainedValues(tiny_trunk(), tmp_path / "old.pth")
    assert torch.equal(values("norm.weight"), state["norm.weight"])
    torch.save({"a": theirs()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"old\.pth: holds other objects than tensors"):
        read_tensors(tmp_path / "old.pth")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(ValueError, match=r"script\.pt: cannot be read .*TorchScript.*; save its state_dict"):
        read_tensors(tmp_path / "script.pt")


@pytest.mark.parametrize("wrapper", [None, "model"])
def test_a_files_own_grid_is_kept_unless_one_is_named(wrapper, tmp_path):
    state = theirs(img_size=72).state_dict()
    torch.save(state if wrapper is None else {wrapper: state}, tmp_path / "m.pth")
    free = tiny_trunk(img_size=None)
    kept = keep_stored_grid(free, tmp_path / "m.pth")
    assert kept == replace(free, img_size=72)
    assert torch.equal(PretrainedValues(kept, tmp_path / "m.pth")("pos_embed"), state["pos_embed"])
    assert keep_stored_grid(tiny_trunk(img_size=32), tmp_path / "m.pth") == tiny_trunk(img_size=32)
    torch.save(theirs(img_size=(72, 40)).state_dict(), tmp_path / "m.pth")
    assert keep_stored_grid(free, tmp_path / "m.pth") == free  # 9 x 5: which sides, no file says


def test_the_grid_of_a_run_is_kept_by_a_run_that_starts_from_it(tmp_path):
    save_file(ours(img_size=72).state_dict(), tmp_path / "model.safetensors")
    assert keep_stored_grid(tiny_trunk(img_size=None), tmp_path).img_size == 72


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is missing")
def test_real_weights_need_no_image_size():
    """DINOv2's positions lie on 37 x 37 patches, and stay as they are."""
    config = Trunk.Config(name="vit_small_patch14_dinov2")
    values = PretrainedValues(keep_stored_grid(config, REAL), REAL)
    assert torch.equal(values("pos_embed"), load_file(REAL)["pos_embed"])
    with pytest.raises(ValueError, match="trunk.name=vit_small_patch14_dinov2$"):
        PretrainedValues(Trunk.Config(name="vit_base_patch14_dinov2"), REAL)


def test_an_index_names_the_files_that_belong_together(tmp_path):
    """What lies beside them in the folder belongs to another model."""
    state = theirs().state_dict()
    parts = [dict(list(state.items())[i::2]) for i in range(2)]
    for i, part in enumerate(parts):
        save_file(part, tmp_path / f"part-{i}.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    index = {"weight_map": {name: f"part-{i}.safetensors" for i, part in enumerate(parts) for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    values = PretrainedValues(tiny_trunk(), tmp_path / "model.safetensors.index.json")
    assert torch.equal(values("norm.weight"), state["norm.weight"])


def test_half_a_file_is_refused(tmp_path):
    for name, save in (("m.safetensors", save_file), ("m.pth", torch.save)):
        save(theirs().state_dict(), tmp_path / name)
        os.truncate(tmp_path / name, (tmp_path / name).stat().st_size // 2)
        with pytest.raises(ValueError, match=f"{name}: cannot be read as weights"):
            PretrainedValues(tiny_trunk(), tmp_path / name)


def test_antialias_without_positions_is_refused():
    config = Trunk.Config(name="vit_small_patch16_dinov3", antialias=False, depth=1)
    with pytest.raises(ValueError, match="antialias=False has no effect: vit_small_patch16_dinov3"):
        config.build(("a",))


def test_fill_lists_what_is_missing_unknown_or_of_another_shape():
    model = ours()
    state = dict(initial_state(model, seed=0))
    state["heads.cls.linear.bias"] = torch.zeros(3)
    state["heads.cls.other"] = state.pop("trunk.vit.cls_token")
    with pytest.raises(ValueError, match="3 problems") as error:
        fill(model, state.items())
    for line in ("trunk.vit.cls_token: missing", "heads.cls.other: the model has no", "shape [3]"):
        assert line in str(error.value)


def test_a_run_whose_weights_are_another_models_is_refused(tmp_path):
    """Its folder is named, and each tensor: another width, one too many, one missing."""
    state = {name: value.clone() for name, value in initial_state(ours(), seed=0)}
    state["heads.cls.linear.bias"] = torch.zeros(3)
    state["heads.cls.other"] = state.pop("trunk.vit.cls_token")
    folder = tmp_path / "weights"
    folder.mkdir()
    save_file(state, folder / "model-00001.safetensors")
    index = {"weight_map": dict.fromkeys(state, "model-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=f"{folder} belongs to another model") as error:
        load_model(tiny_model("task"), TINY_TASKS, folder, torch.device("cpu"))
    for name in ("trunk.vit.cls_token", "heads.cls.other", "heads.cls.linear.bias"):
        assert name in str(error.value)


def test_weights_that_are_cut_off_name_their_file(tmp_path):
    file = tmp_path / "model-00001.safetensors"
    save_file({"a": torch.zeros(99)}, file)
    os.truncate(file, 200)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file.name}}))
    with pytest.raises(ValueError, match=f"{file}: cannot be read .*--resume auto"):
        load_weights(tmp_path, {}.__setitem__)


@pytest.mark.parametrize("router", [r for r in ROUTED if r != "shared"])
def test_the_random_start_depends_on_the_seed_alone(router):
    torch.manual_seed(1)
    a = dict(initial_state(ours(router=router), seed=5))
    torch.manual_seed(2)
    model = ours(router=router)
    b = dict(initial_state(model, seed=5))
    assert set(a) == set(dict(model.named_parameters()))
    assert all(torch.equal(a[n], b[n]) for n in a)
    other = dict(initial_state(model, seed=6))
    changed = {n for n in a if not torch.equal(a[n], other[n])}
    assert {"trunk.vit.patch_embed.proj.weight", "heads.cls.linear.weight"} <= changed
    blocks = [a[f"trunk.vit.blocks.{i}.attn.qkv.weight"] for i in range(2)]
    assert not torch.equal(*blocks)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "eva_giant_patch14_224", "vit_base_patch16_rope_mixed_224"]
)
def test_the_random_start_is_distributed_as_timms(name):
    """Standard deviations of every matrix of at least 2,000 values agree within 8 %, other values exactly."""
    model = ours(name, router="shared")
    state = dict(initial_state(model, seed=0))
    for key, expected in theirs(name, num_classes=0).named_parameters():
        value = state[f"trunk.vit.{key}"]
        assert value.shape == expected.shape
        if expected.numel() >= 2000:
            assert value.std().item() == pytest.approx(expected.std().item(), rel=0.08), key
        elif expected.std() == 0:
            assert torch.equal(value, expected), key


@pytest.mark.parametrize("router", ["shared", "task", "task, all parts"])
def test_a_classifier_cut_out_equals_the_routed_model(router):
    model = ours(router=router).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    state, num_classes = single_task_state(model, "cls")
    dense = timm.create_model("vit_tiny_patch16_224", **SMALL, img_size=32, num_classes=num_classes).eval()
    dense.load_state_dict(state)
    batch = tiny_batch(TINY_TASKS[0])
    images = model.trunk._normalise(batch.images_BCHW, batch.sizes_B2)
    assert torch.equal(dense(images), model.outputs(batch)["logits_BK"])
    state, num_classes = single_task_state(model, "dec")
    assert num_classes == 0 and "head.weight" not in state


@pytest.mark.parametrize("router", ROUTED)
def test_an_added_task_leaves_the_others_bitwise_equal(router):
    model = ours(router=router).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    before = {t.name: model.outputs(tiny_batch(t)) for t in TINY_TASKS}
    extra = task_info("more", "classification", 6)
    model.add_task(extra)
    for task in TINY_TASKS:
        after = model.outputs(tiny_batch(task))
        assert all(torch.equal(a, b) for a, b in zip(flat(before[task.name]), flat(after), strict=True))
    losses = model.train()(tiny_batch(extra))
    sum(losses.values()).backward()
    moved = {role_of(p).task for p in model.parameters() if p.grad is not None}
    assert moved == {None, "more"}
    with pytest.raises(ValueError, match="already"):
        model.add_task(extra)


@pytest.mark.parametrize("router", ROUTED)
def test_the_weights_of_a_run_start_a_run_with_one_more_task(router, tmp_path):
    """The old tasks' outputs are the run's, bitwise; the new experts are those of `add_task`."""
    trained = ours(router=router).eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    if router.startswith("learned"):
        for bank in trained.trunk.banks().values():
            bank.choices["seg"].decided.fill_(1)
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    extra = task_info("more", "classification", 6)
    grown = tiny_model(router).build((*TINY_TASKS, extra)).eval()
    fill(grown, initial_state(grown, seed=0, pretrained=tmp_path))
    for task in TINY_TASKS:
        pairs = zip(*(flat(m.outputs(tiny_batch(task))) for m in (trained, grown)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    if router.startswith("learned"):  # what was decided is not drawn again in training
        grown.train(), trained.train()
        pairs = zip(*(flat(m.outputs(tiny_batch(TINY_TASKS[2]))) for m in (trained, grown)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    trained.add_task(extra)
    found, wanted = grown.state_dict(), trained.state_dict()
    assert found.keys() == wanted.keys()
    experts = [n for n in wanted if ".experts.more." in n or ".choices.more." in n]
    if router == "residual":  # its features are random, drawn by the run's seed
        experts = [n for n in experts if not n.endswith("fc1.weight")]
    assert bool(experts) == (router not in ("shared", "token_topk"))
    assert all(torch.equal(found[n], wanted[n]) for n in experts)
    fewer = tiny_model(router).build(TINY_TASKS[:1])
    with pytest.raises(ValueError, match="was trained for dec, seg too"):
        fill(fewer, initial_state(fewer, seed=0, pretrained=tmp_path))


def test_a_run_that_was_routed_otherwise_is_refused_with_the_remedy(tmp_path):
    save_file(ours(router="shared").state_dict(), tmp_path / "model.safetensors")
    for tasks in (TINY_TASKS, (*TINY_TASKS, task_info("more", "classification", 6))):
        routed = tiny_model("task").build(tasks)
        with pytest.raises(ValueError, match=r"without experts at trunk\.vit\.blocks\.\d\.mlp.*router"):
            fill(routed, initial_state(routed, seed=0, pretrained=tmp_path))


STREETS_OWN = ROUTERS["task"].Config(tasks=("seg",))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("task", STREETS_OWN, r"experts\.cls, \S+, \S+ at \S+, and this model experts\.seg, shared"),
        (STREETS_OWN, "task", r"experts\.seg, shared at \S+, and this model experts\.cls, experts"),
        (STREETS_OWN, "shared", r"experts\.seg, shared at \S+, and this model no experts"),
        ("token_topk", ROUTERS["token_topk"].Config(num_experts=2), r"experts\.3 at \S+, and this model"),
    ],
)
def test_experts_that_do_not_fit_are_named_with_the_remedy(before, after, told, tmp_path):
    save_file(tiny_model(before).build(TINY_TASKS).state_dict(), tmp_path / "model.safetensors")
    model = tiny_model(after).build(TINY_TASKS)
    with pytest.raises(ValueError, match=rf"{told}.*give the router of that run"):
        fill(model, initial_state(model, seed=0, pretrained=tmp_path))


@pytest.mark.parametrize("router", ["shared", "task"])
def test_adapters_are_put_on_a_finished_run(router, tmp_path):
    """Outputs are the run's; a run with adapters goes on with adapters only, and grows no task."""
    trained = ours(router=router).eval()
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    config = tiny_model(router)
    lora = LoraConfig(rank=2, targets=("attention",))
    adapted = replace(config, trunk=replace(config.trunk, lora=lora))
    model = adapted.build(TINY_TASKS).eval()
    fill(model, initial_state(model, seed=0, pretrained=tmp_path))
    for task in TINY_TASKS:
        pairs = zip(*(flat(m.outputs(tiny_batch(task))) for m in (trained, model)), strict=True)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = adapted.build(TINY_TASKS)
    fill(again, initial_state(again, seed=0, pretrained=tmp_path))
    assert all(torch.equal(v, model.state_dict()[n]) for n, v in again.state_dict().items())
    more = adapted.build((*TINY_TASKS, task_info("more", "classification", 6)))
    for other, said in ((config.build(TINY_TASKS), "this model has none"), (more, "grow from whole layers")):
        with pytest.raises(ValueError, match=f"holds LoRA adapters.*{said}.*--to safetensors"):
            fill(other, initial_state(other, seed=0, pretrained=tmp_path))


@pytest.mark.parametrize("router", ROUTED)
def test_an_added_task_has_the_models_dtype_and_mode(router):
    model = ours(router=router).eval().bfloat16()
    extra = task_info("more", "detection", 3)
    model.add_task(extra)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not any(m.training for m in model.modules())
    model.outputs(tiny_batch(extra))


def test_a_refused_task_leaves_the_model_as_it_was():
    config = tiny_model("task")
    model = replace(config, heads=config.heads | {"more": config.heads["detection"]}).build(TINY_TASKS)
    before = model.state_dict().keys()
    with pytest.raises(ValueError, match="more"):
        model.add_task(task_info("more", "classification", 6))
    assert model.state_dict().keys() == before and "more" not in model.trunk.tasks


def flat(outputs: dict) -> list[torch.Tensor]:
    return [v for v in outputs.values() if isinstance(v, torch.Tensor)]


def test_names_of_a_routed_trunk_map_onto_timms():
    trunk = Trunk.Config(
        name="vit_tiny_patch16_224", **SMALL, router=ROUTERS["task"].Config(blocks=(1,))
    ).build(("a",))
    names = dense_names(trunk)
    assert names["vit.blocks.1.mlp.experts.a.fc1.weight"] == "blocks.1.mlp.fc1.weight"
    assert names["vit.pos_embed"] == "pos_embed"
    assert set(names.values()) == set(dict(theirs(num_classes=0).named_parameters()))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"weight_map": {"a": "../a.safetensors"}}', "'../a.safetensors' leads out of its folder"),
        ('{"weight_map": {"a": "/a.safetensors"}}', "'/a.safetensors' leads out of its folder"),
        ('{"weight_map": {"a": 3}}', "its weight_map names no files; copy it again"),
        ('{"weight_map": {}}', "its weight_map names no files"),
        ("[]", "its weight_map names no files"),
        ('{"weight_map"', "not JSON"),
    ],
)
def test_an_index_names_files_beside_it(content, told, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    index = tmp_path / "set/model.safetensors.index.json"
    index.parent.mkdir()
    index.write_text(content)
    with pytest.raises(ValueError, match=rf"index\.json: .*{told}"):
        read_tensors(index)
