"""Every head and router on a GPU: the CPU's losses in float32, finite gradients in bfloat16."""

import pytest
import torch

from ufo_large.tasks import HEADS
from ufo_large.testing.models import ROUTED, TINY_TASKS, tiny_batch, tiny_model, tiny_model_with

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
INFOS = {info.kind: info for info in TINY_TASKS}
RANDOM = ("mask2former", "eomt")  # their loss looks at random points
CONFIGS = {f"{k}, {h}": (k, tiny_model_with(k, h)) for k, heads in HEADS.items() for h in heads}
CONFIGS |= {f"router {router}": ("classification", tiny_model(router)) for router in ROUTED}


def filled(config):
    torch.manual_seed(0)
    model = config.build(TINY_TASKS)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_the_losses_are_the_cpus(name):
    kind, config = CONFIGS[name]
    model, batch = filled(config).eval(), tiny_batch(INFOS[kind], 2, 48)
    expected = model(batch)
    found = model.to("cuda")(batch.to("cuda"))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].is_cuda and found[key].isfinite()
        if not any(head in name for head in RANDOM):
            torch.testing.assert_close(found[key].cpu(), value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_it_trains_in_bfloat16_and_predicts(name):
    kind, config = CONFIGS[name]
    model, batch = filled(config).to("cuda").train(), tiny_batch(INFOS[kind], 2, 48).to("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        losses = model(batch)
    torch.stack([value.float() for value in losses.values()]).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    with torch.no_grad():
        assert len(model.eval().predict(batch)) == 2
