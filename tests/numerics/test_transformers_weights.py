"""Checkpoints written by transformers give the trunk the features that transformers computes itself."""

import pytest
import torch
import transformers as hf

from ufo_large.models import Trunk
from ufo_large.models.dense_values import PretrainedValues
from ufo_large.models.weights import fill, trunk_values
from ufo_large.routing import PARTS, ROUTERS

WIDTH, DEPTH, HEADS, HIDDEN = 48, 2, 4, 192
SHAPE = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}


def vit(**options):
    return hf.ViTForImageClassification(
        hf.ViTConfig(**SHAPE, intermediate_size=HIDDEN, image_size=64, layer_norm_eps=1e-6, **options)
    )


def clip(model=hf.CLIPVisionModel, **options):
    config = hf.CLIPVisionConfig(**SHAPE, intermediate_size=HIDDEN, image_size=64, patch_size=16, **options)
    if model is hf.CLIPModel:
        text = {**SHAPE, "vocab_size": 99, "intermediate_size": 64}
        config = hf.CLIPConfig(vision_config=config.to_dict(), text_config=text)
    return model(config)


def siglip(model=hf.SiglipVisionModel, **options):
    config = hf.SiglipVisionConfig(**SHAPE, intermediate_size=HIDDEN, image_size=64, patch_size=16, **options)
    if model is hf.SiglipModel:
        text = {**SHAPE, "vocab_size": 99, "intermediate_size": 64}
        config = hf.SiglipConfig(vision_config=config.to_dict(), text_config=text)
    return model(config)


def dinov2(model=hf.Dinov2Model, **options):
    return model(model.config_class(**SHAPE, image_size=56, patch_size=14, **options))


def dinov3(**options):
    return hf.DINOv3ViTModel(
        hf.DINOv3ViTConfig(**SHAPE, intermediate_size=HIDDEN, num_register_tokens=4, **options)
    )


FAMILIES = {
    "ViT": (vit, {}, "vit_base_patch16_224"),
    "CLIP": (clip, {"hidden_act": "quick_gelu"}, "vit_base_patch16_clip_quickgelu_224"),
    "CLIP with its text tower": (
        clip,
        {"model": hf.CLIPModel, "hidden_act": "gelu"},
        "vit_base_patch16_clip_224",
    ),
    "SigLIP": (siglip, {"hidden_act": "gelu"}, "vit_base_patch16_siglip_224"),
    "SigLIP with its text tower": (
        siglip,
        {"model": hf.SiglipModel, "hidden_act": "gelu"},
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
