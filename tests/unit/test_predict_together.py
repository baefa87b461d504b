"""All tasks on the same images: the blocks before the first expert run once, and no bit changes."""

from dataclasses import replace

import pytest
import torch

from ufo_large.models import MultitaskModel
from ufo_large.structures.batch import map_arrays
from ufo_large.testing.models import ROUTED, TINY_TASKS, tiny_batch, tiny_model


def batches() -> list:
    shown = replace(tiny_batch(TINY_TASKS[0], 3), targets=None)
    return [replace(shown, task=info.name) for info in TINY_TASKS]


def built(router: str, **trunk) -> MultitaskModel:
    """A model whose experts differ, so that a pass with another task's experts would show."""
    torch.manual_seed(0)
    model = tiny_model(router, **trunk).build(TINY_TASKS).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def tensors(prediction) -> list[torch.Tensor]:
    own = []
    map_arrays(prediction, lambda t: own.append(t) or t)
    return own


def calls_of(model: MultitaskModel) -> list[int]:
    """Count the calls of each block from now on."""
    counts = [0] * model.trunk.depth
    for index, block in enumerate(model.trunk.vit.blocks):

        def count(*_, index=index):
            counts[index] += 1

        block.register_forward_pre_hook(count)
    return counts


@pytest.mark.parametrize("router", ROUTED)
@torch.no_grad()
def test_every_router_predicts_the_bits_of_one_pass_per_task(router):
    model = built(router)
    alone = [model.predict(batch) for batch in batches()]
    counts = calls_of(model)
    together = model.predict_together(batches())
    for expected, found in zip(alone, together, strict=True):
        for a, b in zip(expected, found, strict=True):
            assert len(tensors(a)) > 0
            assert all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))
    shared = model.shared_blocks
    assert shared == (4 if router == "shared" else 3)
    assert counts == [1] * shared + [3] * (4 - shared)


@torch.no_grad()
def test_rotary_positions_share_as_well():
    model = built("task", name="eva02_tiny_patch14_224", patch_size=14, embed_dim=48, img_size=28)
    alone = [model.predict(batch) for batch in batches()]
    counts = calls_of(model)
    together = model.predict_together(batches())
    assert torch.equal(tensors(alone[2][0])[0], tensors(together[2][0])[0])
    assert counts[:3] == [1, 1, 1]


@torch.no_grad()
def test_the_model_is_as_before_also_after_an_error():
    model = built("task")
    blocks = list(model.trunk.vit.blocks)
    model.heads["dec"].predict = None
    with pytest.raises(TypeError):
        model.predict_together(batches())
    assert list(model.trunk.vit.blocks) == blocks


def test_other_images_are_refused():
    one, two = batches()[0], batches()[1]
    two = replace(two, images_BCHW=two.images_BCHW.clone())
    with pytest.raises(ValueError, match="'dec'.*one tensor of images"):
        built("task").predict_together([one, two])
