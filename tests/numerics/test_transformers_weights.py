"""Checkpoints written by transformers give the trunk the features that transformers computes itself."""

import json
import re
from dataclasses import replace
from unittest import mock

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from ufo_large.models import Trunk
from ufo_large.models.dense_values import PretrainedValues, keep_stored_grid
from ufo_large.models.transformers_names import Joined
from ufo_large.models.weights import fill, trunk_values
from ufo_large.routing import PARTS, ROUTERS

WIDTH, DEPTH, HEADS, HIDDEN = 48, 2, 4, 192
SHAPE = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}


def vit(**options):
    return hf.ViTForImageClassification(
        hf.ViTConfig(**SHAPE, intermediate_size=HIDDEN, image_size=64, layer_norm_eps=1e-6, **options)
    )


def contrastive(name, has_text=False, **options):
    """The vision tower of CLIP or SigLIP, alone or beside its text tower."""
    make = lambda part, **values: getattr(hf, f"{name}{part}")(**values)
    shape = {**SHAPE, "intermediate_size": HIDDEN, "image_size": 64, "patch_size": 16}
    vision = make("VisionConfig", **shape, **options)
    if not has_text:
        return make("VisionModel", config=vision)
    text = {**SHAPE, "vocab_size": 99, "intermediate_size": 64}
    return make("Model", config=make("Config", vision_config=vision.to_dict(), text_config=text))


def dinov2(model=hf.Dinov2Model, **options):
    return model(model.config_class(**SHAPE, image_size=56, patch_size=14, **options))


def dinov3(**options):
    return hf.DINOv3ViTModel(
        hf.DINOv3ViTConfig(**SHAPE, intermediate_size=HIDDEN, num_register_tokens=4, **options)
    )


FAMILIES = {
    "ViT": (vit, {}, "vit_base_patch16_224"),
    "CLIP": (
        contrastive,
        {"name": "CLIP", "hidden_act": "quick_gelu"},
        "vit_base_patch16_clip_quickgelu_224",
    ),
    "CLIP with its text tower": (
        contrastive,
        {"name": "CLIP", "has_text": True, "hidden_act": "gelu"},
        "vit_base_patch16_clip_224",
    ),
    "SigLIP": (contrastive, {"name": "Siglip", "hidden_act": "gelu"}, "vit_base_patch16_siglip_224"),
    "SigLIP with its text tower": (
        contrastive,
        {"name": "Siglip", "has_text": True, "hidden_act": "gelu"},
        "vit_base_patch16_siglip_224",
    ),
    "DINOv2": (dinov2, {}, "vit_small_patch14_dinov2"),
    "DINOv2 with SwiGLU and a classifier": (
        dinov2,
        {"model": hf.Dinov2ForImageClassification, "use_swiglu_ffn": True},
        "vit_giant_patch14_dinov2",
    ),
    "DINOv2 with registers": (
        dinov2,
        {"model": hf.Dinov2WithRegistersModel},
        "vit_small_patch14_reg4_dinov2",
    ),
    "DINOv2 with registers and SwiGLU": (
        dinov2,
        {"model": hf.Dinov2WithRegistersModel, "use_swiglu_ffn": True},
        "vit_giant_patch14_reg4_dinov2",
    ),
    "DINOv3": (dinov3, {}, "vit_small_patch16_dinov3_qkvb"),
    "DINOv3 with SwiGLU": (
        dinov3,
        {"use_gated_mlp": True, "hidden_act": "silu"},
        "vit_small_plus_patch16_dinov3_qkvb",
    ),
}


def written(family: str, folder, **save) -> tuple[torch.nn.Module, Trunk]:
    """Write a random model of transformers to `folder`; return it and a trunk that has read it."""
    make, options, name = FAMILIES[family]
    torch.manual_seed(0)
    model = make(**options).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases, norms and layer scales too
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder, **save)
    return model, read(name, folder, model)


def read(name: str, path, model: torch.nn.Module) -> Trunk:
    vision = getattr(model.config, "vision_config", model.config)
    size = 64 if model.config.model_type == "dinov3_vit" else vision.image_size
    router = ROUTERS["task"].Config(blocks=(1,), parts=PARTS)
    shape = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "img_size": size}
    trunk = Trunk.Config(name=name, router=router, **shape).build(("a", "b")).eval()
    fill(trunk, trunk_values(trunk, PretrainedValues(trunk.config, path), seed=0))
    return trunk


def theirs(model: torch.nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return normalised tokens, prefix included, and the pooled vector where transformers has timm's."""
    for name in ("vit", "vision_model", "dinov2"):
        model = getattr(model, name, model)
    output = model(images)
    tokens = output.last_hidden_state
    if isinstance(model, hf.CLIPVisionModel):
        tokens = model.post_layernorm(tokens)
    return tokens, output.pooler_output


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_features_are_those_of_transformers(family, tmp_path):
    """Largest difference over largest value. Measured: 3.9e-7 at most (`-s` prints each); 1e-5 is allowed."""
    model, trunk = written(family, tmp_path)
    size = trunk.vit.patch_embed.img_size
    images = torch.randn(2, 3, *size)
    tokens, pooled = theirs(model, images)
    for task in ("a", "b"):
        trunk.route.begin(task, training=False)
        ours = trunk.vit.forward_features(images)
        worst = ((ours - tokens).abs().max() / tokens.abs().max()).item()
        if family.startswith(("CLIP", "SigLIP", "DINOv2")):
            difference = trunk.vit.forward_head(ours, pre_logits=True) - pooled
            worst = max(worst, (difference.abs().max() / pooled.abs().max()).item())
        print(f"{family}: relative difference from transformers {worst:.1e}")
        assert worst < 1e-5


@pytest.mark.parametrize("family", ["DINOv2", "DINOv2 with SwiGLU and a classifier", "DINOv2 with registers"])
@pytest.mark.parametrize("size", [(42, 28), (84, 70)])
@torch.no_grad()
def test_positions_are_resampled_as_transformers_does_it(family, size, tmp_path):
    """Stored for 56 x 56 pixels. DINOv2's authors filter only in the variant with registers, timm always.

    Largest difference over largest value. Measured: 4.7e-7 at most; the other filter: 1e-2 to 1e-1.
    """
    model, trunk = written(family, tmp_path)
    images = torch.randn(2, 3, *size)
    tokens, _ = theirs(model, images)
    trunk.route.begin("a", training=False)
    worst = ((trunk.vit.forward_features(images) - tokens).abs().max() / tokens.abs().max()).item()
    print(f"{family}: relative difference from transformers {worst:.1e}")
    assert worst < 1e-5


@torch.no_grad()
def test_a_files_positions_are_resampled_to_a_chosen_grid_as_transformers_does_it(tmp_path):
    model, _ = written("DINOv2", tmp_path)
    shape = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    config = Trunk.Config(name="vit_small_patch14_dinov2", img_size=42, **shape)
    positions = model.embeddings.interpolate_pos_encoding(torch.zeros(1, 10, WIDTH), 42, 42)
    assert torch.equal(PretrainedValues(config, tmp_path)("pos_embed"), positions)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_grid_of_the_positions_is_read_from_the_file(family, tmp_path):
    _, trunk = written(family, tmp_path)
    free = replace(trunk.config, img_size=None)
    rotary = trunk.vit.pos_embed is None
    assert keep_stored_grid(free, tmp_path) == (free if rotary else trunk.config)


@torch.no_grad()
def test_a_folder_in_shards_with_an_index_reads_as_one_file(tmp_path):
    _, whole = written("DINOv3 with SwiGLU", tmp_path / "whole")
    _, parts = written("DINOv3 with SwiGLU", tmp_path / "parts", max_shard_size="50KB")
    assert (tmp_path / "parts" / "model.safetensors.index.json").is_file()
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    for (name, one), other in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_fused_parameters_are_stacked_only_when_asked_for(tmp_path):
    """Until then queries, keys and values stay apart, in the file's memory."""
    _, trunk = written("CLIP", tmp_path)
    values = PretrainedValues(trunk.config, tmp_path)
    name = "blocks.1.attn.qkv.weight"
    with mock.patch.object(Joined, "tensor", autospec=True, side_effect=Joined.tensor) as stack:
        PretrainedValues(trunk.config, tmp_path)
        assert stack.call_count == 0
        assert values(name).shape == (3 * WIDTH, WIDTH)
        assert values("blocks.0.norm1.weight").shape == (WIDTH,)
        assert stack.call_count == 1


def rewritten(folder, change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_missing_and_extra_names_are_listed_together(tmp_path):
    model, _ = written("ViT", tmp_path)

    def change(tensors):
        prefix = next(n for n in tensors if n.endswith("layernorm.weight")).removesuffix("layernorm.weight")
        del tensors[f"{prefix}layernorm.weight"]
        query = next(n for n in tensors if re.search(r"1\..*(query|q_proj)\.bias$", n))
        del tensors[query]
        tensors[f"{prefix}adapter.weight"] = torch.zeros(2)

    rewritten(tmp_path, change)
    with pytest.raises(ValueError, match="does not hold the weights of vit_base_patch16_224") as error:
        read("vit_base_patch16_224", tmp_path, model)
    text = str(error.value)
    assert "norm.weight: missing" in text and "blocks.1.attn.qkv.bias: missing" in text
    assert "adapter.weight: not a parameter of the model" in text
    assert re.search(r"1\.\S*(key|k_proj)\.bias: not a parameter of the model", text)


@pytest.mark.parametrize(
    ("family", "name", "heads", "message"),
    [
        ("ViT", "vit_base_patch16_224", 2, "4 attention heads, but the trunk has 2; set trunk.num_heads=4"),
        ("CLIP", "vit_base_patch16_clip_224", HEADS, "quick_gelu, but the trunk's is not quick GELU"),
        ("SigLIP", "vit_base_patch16_clip_quickgelu_224", HEADS, "gelu, but the trunk's is quick GELU"),
        ("CLIP with its text tower", "vit_base_patch16_clip_quickgelu_224", HEADS, "gelu, but the trunk's"),
    ],
)
def test_a_card_that_contradicts_the_trunk_is_refused(family, name, heads, message, tmp_path):
    """Shapes fit, so that only config.json tells."""
    written(family, tmp_path)
    config = Trunk.Config(name=name, embed_dim=WIDTH, depth=DEPTH, num_heads=heads, img_size=64)
    with pytest.raises(ValueError, match=re.escape(message)):
        PretrainedValues(config, tmp_path)


def test_code_beside_weights_is_neither_run_nor_asked_for(tmp_path):
    written("ViT", tmp_path)
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    card = {"model_type": "of_theirs", "auto_map": {"AutoConfig": "theirs.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(card))
    config = Trunk.Config(
        name="vit_base_patch16_224", embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, img_size=64
    )
    with pytest.raises(ValueError, match=r"config\.json: a model that transformers does not have"):
        PretrainedValues(config, tmp_path)
    assert not (tmp_path / "run").exists()


def test_biases_without_a_place_are_refused_unless_zero(tmp_path):
    model, _ = written("DINOv3", tmp_path)
    with pytest.raises(ValueError, match=r"q_proj.bias is not zero.*vit_base_patch16_dinov3_qkvb"):
        read("vit_small_patch16_dinov3", tmp_path, model)

    def silence(tensors):
        for name in tensors:
            if re.search(r"[qkv]_proj\.bias$", name):
                tensors[name].zero_()

    rewritten(tmp_path, silence)
    read("vit_small_patch16_dinov3", tmp_path, model)
