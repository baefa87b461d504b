"""A model on the meta device is built without initialisation, and is the same model."""

import pytest
import timm
import torch

from ufo_large.models.without_values import init_options
from ufo_large.recipes import load_recipe

NAMES = ("vit_tiny_patch16_224.augreg_in21k", "vit_base_patch16_clip_224", "eva02_tiny_patch14_224")


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_those_of_a_built_model(name):
    with torch.device("meta"):
        assert init_options(name) == ({} if name.startswith("eva") else {"weight_init": "skip"})
        shapes = timm.create_model(name, num_classes=0, depth=2, **init_options(name))
    whole = timm.create_model(name, num_classes=0, depth=2)
    described = [
        [(n, t.shape, t.dtype, t.requires_grad) for n, t in sorted(m.state_dict(keep_vars=True).items())]
        for m in (shapes, whole)
    ]
    assert described[0] == described[1] and init_options(name) == {}


def test_a_trunk_on_the_meta_device_initialises_nothing(monkeypatch):
    called = []
    monkeypatch.setattr(timm.models.vision_transformer, "trunc_normal_", lambda *a, **k: called.append(a))
    trunk = load_recipe("demo").model.trunk
    with torch.device("meta"):
        trunk.build_vit()
    assert not called
    trunk.build_vit()
    assert called
