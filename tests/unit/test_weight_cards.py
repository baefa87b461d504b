"""What lies beside weights names the trunk: its tag, its pixels, and another model of the same shape."""

import json
import warnings

import pytest
import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ufo_large.finetuning.start import start_from
from ufo_large.models import Trunk
from ufo_large.models.extract import write_timm_folder
from ufo_large.models.weight_cards import as_described, timm_name
from ufo_large.testing.models import TINY_TASKS, task_info, tiny_model
from ufo_large.train.pretrained import settled

SMALL, BASE = (Trunk.Config(name=f"vit_{size}_patch16_224") for size in ("small", "base"))


@pytest.fixture
def described(tmp_path):
    """Return a function that describes weights in the test's folder; it returns their path."""

    def describe(card: dict, pixels: dict | None = None):
        (tmp_path / "config.json").write_text(json.dumps(card))
        if pixels is not None:
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels))
        return tmp_path / "model.safetensors"

    return describe


def card_of(name: str, tag: str | None = None, **pixels) -> dict:
    return {"architecture": name, "num_classes": 0, "pretrained_cfg": {"tag": tag, **pixels}}


def test_a_card_of_timms_brings_its_tag(described):
    """The pixels and the filter of positions of DINO, as its name on the hub does."""
    weights = described(card_of("vit_small_patch16_224", "dino"))
    found = as_described(SMALL, weights)
    assert found.name == timm_name(weights) == "vit_small_patch16_224.dino" and not found.is_antialiased
    assert as_described(SMALL, weights.parent) == found
    assert as_described(SMALL, weights.with_name("dinov2_vits14_pretrain.pth")) == SMALL  # of another model
    with pytest.raises(ValueError, match=r"but the trunk is a vit_small_patch16_224.augreg_in21k; set"):
        as_described(Trunk.Config(name="vit_small_patch16_224.augreg_in21k"), weights)


def test_a_card_of_another_model_of_the_same_shape_is_refused(described):
    weights = described(card_of("vit_base_patch16_clip_quickgelu_224", "metaclip_400m"))
    with pytest.raises(
        ValueError, match=r"config.json is of a vit_base_patch16_clip_quickgelu_224.*set model"
    ):
        as_described(Trunk.Config(name="vit_base_patch16_clip_224"), weights)
    assert as_described(BASE, described(card_of("resnet50", "a1_in1k"))) == BASE


def test_pixels_that_differ_name_the_tags_that_have_them(described):
    """timm's first choice for this ViT has 0.5 throughout; DINO's and MAE's have those of ImageNet."""
    imagenet = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    said = r"mean and deviation .*0\.485.* for vit_base_patch16_224 \[0\.5.*set model.trunk.name=vit_base_"
    with pytest.raises(ValueError, match=said):
        as_described(BASE, described(card_of("vit_base_patch16_224", "mine", **imagenet)))
    theirs = {f"image_{key}": value for key, value in imagenet.items()}
    weights = described({"model_type": "vit"}, theirs)
    with pytest.raises(ValueError, match=rf"preprocessor_config.json: {said}"):
        as_described(BASE, weights)
    dino = Trunk.Config(name="vit_base_patch16_224.dino")
    assert as_described(dino, weights) == dino
    assert as_described(BASE, described({"model_type": "vit"}, {**theirs, "do_normalize": False})) == BASE


def test_pixels_that_no_tag_has_are_told(described):
    weights = described({"model_type": "vit"}, {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]})
    with pytest.warns(UserWarning, match=r"which the run takes; timm has no tag of vit_small_patch16_224"):
        assert as_described(SMALL, weights) == SMALL


@pytest.mark.parametrize(
    "card", [{}, {"architecture": 3}, card_of("vit_small_patch16_224") | {"pretrained_cfg": 1}]
)
@pytest.mark.parametrize(
    "pixels", [{}, {"image_mean": "x", "image_std": [1, 2]}, {"image_mean": [1, 2, None]}]
)
def test_cards_that_say_nothing_change_nothing(described, card, pixels):
    with warnings.catch_warnings(action="error"):
        assert as_described(SMALL, described(card, pixels)) == SMALL


def test_an_export_starts_a_run_under_the_name_it_was_trained_under(tmp_path):
    """Its card has no tag, for the weights are others by now, but the pixels of its own."""
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    write_timm_folder(tiny_model("shared", name=name).build(TINY_TASKS), "cls", tmp_path, (40, 40))
    trunk = Trunk.Config(name=name)
    assert as_described(trunk, tmp_path) == trunk


def test_finetune_takes_the_trunk_that_the_card_names(described):
    """A quick GELU that names and shapes of the weights do not show."""
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_clip_quickgelu_224", num_classes=0)
    weights = described(card_of("vit_base_patch16_clip_quickgelu_224", "openai")).with_name(
        "pytorch_model.bin"
    )
    torch.save({n: torch.zeros(1).expand(v.shape) for n, v in vit.state_dict().items()}, weights)
    config = start_from(str(weights), [task_info("cls", "classification", 3)]).config
    assert config.model.trunk.name == "vit_base_patch16_clip_quickgelu_224.openai"
    assert settled(config).model.trunk.name == config.model.trunk.name
