"""The trunk says what timm says, for one small model of every family of plain ViTs."""

import pytest
import timm
import torch

from ufo_large.models import Trunk
from ufo_large.routing import PARTS, ROUTERS
from ufo_large.structures import role_of

SMALL = {"depth": 3, "embed_dim": 96, "num_heads": 4}
FAMILIES = {
    "supervised": ("vit_base_patch16_224", 224),
    "large": ("vit_large_patch16_224", 224),
    "huge": ("vit_huge_patch14_224", 224),
    "average pooling with a norm after it": ("vit_medium_patch16_gap_256", 256),
    "CLIP, norm before the blocks": ("vit_giant_patch14_clip_224", 224),
    "CLIP ViT-G": ("vit_gigantic_patch14_clip_224", 224),
    "CLIP, quick GELU": ("vit_base_patch16_clip_quickgelu_224", 224),
    "DINOv2": ("vit_small_patch14_dinov2", 98),
    "DINOv2 with SwiGLU": ("vit_giant_patch14_dinov2", 98),
    "DINOv2 with registers": ("vit_giant_patch14_reg4_dinov2", 98),
    "DINOv3, rotary": ("vit_7b_patch16_dinov3", 128),
    "SigLIP, attention pooling": ("vit_so400m_patch14_siglip_224", 224),
    "EVA": ("eva_giant_patch14_224", 224),
    "EVA CLIP": ("eva_giant_patch14_clip_224", 224),
    "EVA-02, rotary and SwiGLU": ("eva02_large_patch14_224", 224),
    "EVA-02 CLIP, post-norm": ("eva02_enormous_patch14_clip_224", 224),
    "DeiT-III": ("deit3_base_patch16_224", 224),
    "rotary by axis": ("vit_base_patch16_rope_224", 224),
    "rotary, learned": ("vit_base_patch16_rope_mixed_224", 224),
    "perception encoder": ("vit_pe_core_base_patch16_224", 224),
}


def make(name: str, size: int) -> tuple[Trunk, torch.nn.Module]:
    torch.manual_seed(0)
    router = ROUTERS["task"].Config(blocks=(0, 2), parts=PARTS)
    antialias = True if "dinov2" in name else None  # timm's way of resampling positions, for all it has
    config = Trunk.Config(name=name, img_size=size, router=router, antialias=antialias, **SMALL)
    trunk = config.build(("a", "b"))
    torch.manual_seed(0)
    theirs = timm.create_model(name, img_size=size, num_classes=0, dynamic_img_size=True, **SMALL)
    return trunk.eval(), theirs.eval()


def normalised(theirs: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Normalise with torchvision's functional API, a second way of writing it."""
    from torchvision.transforms.v2 import functional as F

    cfg = theirs.pretrained_cfg
    return F.normalize(F.to_dtype(images, torch.float32, scale=True), list(cfg["mean"]), list(cfg["std"]))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_routed_trunk_starts_as_timms_model(family):
    """Normalised in another way. Measured: 2.6e-6 at most (`-s` prints each family); 1e-5 is allowed."""
    worst = 0.0
    trunk, theirs = make(*FAMILIES[family])
    patch = trunk.stride
    for height, width in ((6 * patch, 6 * patch), (4 * patch, 7 * patch)):  # neither is the model's own
        images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
        tokens = theirs.forward_features(normalised(theirs, images))
        pooled = theirs.forward_head(tokens, pre_logits=True)
        for task in ("a", "b"):
            ours = trunk(images, torch.tensor([[height, width]] * 2), task)
            assert ours.image_size == (height, width) and ours.stride == patch
            worst = max(worst, (ours.pooled_BD - pooled).abs().max().item())
            if not isinstance(theirs.norm, torch.nn.Identity):
                grid = tokens[:, theirs.num_prefix_tokens :].reshape(2, height // patch, width // patch, -1)
                worst = max(worst, (ours.map_BDHW.permute(0, 2, 3, 1) - grid).abs().max().item())
    print(f"{family}: largest difference from timm {worst:.1e}")
    assert worst < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_carry_their_tasks_role_and_only_the_running_one_learns(family):
    trunk, _ = make(*FAMILIES[family])
    trunk.train()
    size = 4 * trunk.stride
    images = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    features = trunk(images, torch.tensor([[size, size]]), "b")
    (features.map_BDHW.square().sum() + features.pooled_BD.square().sum()).backward()
    for name, parameter in trunk.named_parameters():
        role = role_of(parameter)
        assert role.task == ("a" if ".experts.a." in name else "b" if ".experts.b." in name else None), name
        assert (parameter.grad is None) == (role.task == "a"), name


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_residual_experts_of_every_family_start_at_nothing_bitwise(family):
    name, size = FAMILIES[family]
    outputs = []
    for router in (ROUTERS["shared"].Config(), ROUTERS["residual"].Config(blocks=(0, 2))):
        torch.manual_seed(0)
        trunk = Trunk.Config(name=name, img_size=size, router=router, **SMALL).build(("a", "b")).eval()
        side = 4 * trunk.stride
        images = torch.arange(3 * side * side).remainder(251).view(1, 3, side, side).to(torch.uint8)
        outputs.append(trunk(images, torch.tensor([[side, side]]), "b"))
    shared, residual = outputs
    assert torch.equal(shared.pooled_BD, residual.pooled_BD)
    assert torch.equal(shared.map_BDHW, residual.map_BDHW)


def test_a_stem_that_cannot_be_built_sharded_is_refused_with_the_remedy(monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("weight should have at least three dimensions")

    config = Trunk.Config(name="vit_tiny_r_s16_p8_224")
    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(ValueError, match="use a plain ViT, or ZeRO stage 1 or 2"):
        config.build_vit()


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("resnet50", {}, "needs a plain ViT"),
        ("swin_tiny_patch4_window7_224", {}, "needs a plain ViT"),
        ("samvit_base_patch16", {}, "needs a plain ViT"),
        ("beit_base_patch16_224", {}, "needs a plain ViT"),
        ("naflexvit_base_patch16_gap", {}, "needs a plain ViT"),
        ("vitamin_base_224", {"embed_dim": 96}, "of a shape that it allows"),
    ],
)
def test_what_is_no_plain_vit_is_refused(name, shape, said):
    with pytest.raises(ValueError, match=f"{name}.*{said}"), torch.device("meta"):
        Trunk.Config(name=name, **shape).build_vit()


def test_an_unknown_name_lists_plain_vits_only():
    with pytest.raises(ValueError, match="no timm model") as error:
        Trunk.Config(name="vit_giant_patch14_clip_225")
    assert "vit_giant_patch14_clip_224" in str(error.value) and "convit" not in str(error.value)
