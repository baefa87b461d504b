"""Checkpointing changes what is kept, not what is computed."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ufo_large.models.checkpointing import CHECKPOINTING
from ufo_large.testing.models import tiny_trunk

DEVICES = (
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")],
    ),
)
FAMILIES = {"vit": {}, "eva02": {"name": "eva02_large_patch14_224", "patch_size": 14, "img_size": 42}}


class MatmulCount(TorchDispatchMode):
    """Count products with a bias, as linear layers make them in the forward direction."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += operation is torch.ops.aten.addmm.default
        return operation(*args, **(kwargs or {}))


def run(
    family: str,
    mode: str,
    device: str = "cpu",
    autocast: bool = False,
    frozen: str = "nothing",
    router: str = "task, all parts",
) -> tuple[dict, int]:
    """Return the gradients of one step with random block drops, and the matrix products done.

    `autocast` to bfloat16; `frozen`: the first part of the names of parameters that need no gradient.
    """
    torch.manual_seed(0)
    trunk = tiny_trunk(router, checkpointing=mode, drop_path=0.3, **FAMILIES[family]).build(("a", "b"))
    for parameter in trunk.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # biases too
    for name, parameter in trunk.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    trunk.to(device)
    images = torch.randint(0, 256, (4, 3, 42, 42), dtype=torch.uint8).to(device)
    with MatmulCount() as matmuls:
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            features = trunk(images, torch.full((4, 2), 42, device=device), "b")
            loss = features.pooled_BD.float().square().mean() + features.map_BDHW.float().sin().mean()
        loss.backward()
    return {n: p.grad for n, p in trunk.named_parameters()}, matmuls.count


@pytest.mark.parametrize("router", ["task, all parts", "learned, all parts", "residual"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_mode_gives_the_same_gradients(family, router):
    """Measured difference: 0."""
    expected, kept = run(family, "none", router=router)
    counts = {}
    for mode in CHECKPOINTING:
        gradients, counts[mode] = run(family, mode, router=router)
        assert list(gradients) == list(expected)
        for name, gradient in gradients.items():
            assert (gradient is None) == (expected[name] is None), name
            assert gradient is None or torch.equal(gradient, expected[name]), name
    assert counts["none"] == counts["selective"] == kept
    assert min(counts["full"], counts["offload"]) > 1.5 * kept


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("autocast", (False, True), ids=("float32", "bfloat16"))
@pytest.mark.parametrize("frozen", ("nothing", "vit.patch_embed", "vit.blocks.0", "vit.blocks"))
@pytest.mark.parametrize("mode", [mode for mode in CHECKPOINTING if mode != "none"])
def test_a_mode_is_exact_on_each_device_under_autocast_and_with_frozen_parts(mode, frozen, autocast, device):
    """Measured difference: 0 on a CPU; a GPU adds up attention's gradients in any order."""
    (expected, _), (gradients, _) = (run("vit", m, device, autocast, frozen) for m in ("none", mode))
    accuracy = 0.0 if device == "cpu" else 0.02 if autocast else 1e-4
    for name, gradient in gradients.items():
        assert (gradient is None) == (expected[name] is None), name
        if gradient is not None:
            assert (gradient - expected[name]).norm() <= accuracy * expected[name].norm(), name
    assert any(gradient is not None and gradient.any() for gradient in gradients.values())


def linear_in_place(x, weight, bias=None):
    """DeepSpeed's way to write a linear layer."""
    y = x @ weight.t()
    if bias is not None:
        y += bias
    return y


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bias_added_in_place_does_not_spoil_what_is_kept(family, monkeypatch):
    """DeepSpeed replaces torch's linear under ZeRO-3. Measured difference: 0."""
    monkeypatch.setattr(torch.nn.functional, "linear", linear_in_place)
    (expected, _), (gradients, _) = run(family, "none"), run(family, "selective")
    for name, gradient in gradients.items():
        assert gradient is None or torch.equal(gradient, expected[name]), name


@pytest.mark.parametrize("mode", CHECKPOINTING)
def test_prediction_computes_nothing_twice(mode):
    trunk = tiny_trunk(checkpointing=mode).build(("a",)).eval()
    with torch.no_grad(), MatmulCount() as matmuls:
        features = trunk(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.tensor([[32, 32]]), "a")
    assert not features.pooled_BD.requires_grad
    assert matmuls.count == 4 * 4
