"""What every routing scheme must satisfy."""

import torch

from ufo_large.models import Trunk
from ufo_large.routing import Router
from ufo_large.structures import role_of
from ufo_large.testing.models import tiny_trunk

TASKS = ("a", "b", "c")
ROUNDING = 1e-5
"""What a sum in another order may change of outputs up to 3 (measured: 1.1e-6)."""


def check_router(config: Router.Config) -> None:
    """Dense at step 0, same route wherever it is drawn, gradients reach what the running task owns.

    Where the scheme names a dense path for a task, the network of these paths predicts the same: bitwise
    where the paths are the banks' own modules, but for rounding where they are joined from several.
    """
    _check_dense_at_start(config)
    _check_dense_path(config)
    _check_same_route_everywhere(config)
    _check_gradients(config)


def build(config: Router.Config) -> Trunk:
    """Return a small trunk with this routing; equal weights at every call."""
    torch.manual_seed(0)
    return tiny_trunk(router=config).build(TASKS)


def run(trunk: Trunk, task: str, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pooled vector and map for random images."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    features = trunk(images, torch.full((2, 2), 32), task)
    return features.pooled_BD, features.map_BDHW


def disturb(trunk: Trunk, seed: int = 2) -> Trunk:
    """Make all parameters, and so all experts, differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return trunk


def _check_dense_at_start(config: Router.Config) -> None:
    dense = tiny_trunk(router="shared")
    torch.manual_seed(0)
    expected = run(dense.build(TASKS), TASKS[0])
    trunk = build(config)
    for training in (True, False):
        for task in TASKS:
            for ours, theirs in zip(run(trunk.train(training), task), expected, strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def _check_dense_path(config: Router.Config) -> None:
    for task in TASKS:
        trunk = disturb(build(config)).eval()
        expected, allowed = run(trunk, task), 0.0
        for place, bank in trunk.banks().items():
            try:
                path = bank.path(task)
            except ValueError:
                return
            if path not in bank.modules():
                allowed = ROUNDING
            trunk.vit.set_submodule(place, path)
        assert not trunk.banks()
        for found, wanted in zip(run(trunk, task), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=allowed, rtol=0)


def _check_same_route_everywhere(config: Router.Config) -> None:
    one, other = disturb(build(config)), disturb(build(config))
    torch.manual_seed(3)
    routes = [run(one, task)[0] for task in TASKS * 3]
    torch.manual_seed(4)
    assert all(torch.equal(a, run(other, t)[0]) for a, t in zip(routes, TASKS * 3, strict=True))


def _check_gradients(config: Router.Config) -> None:
    trunk = disturb(build(config))
    for _ in range(20):  # random schemes draw other paths
        losses = [x.square().mean() for x in run(trunk, "b")]
        (sum(losses) + sum(trunk.route.losses.values())).backward()
    for name, parameter in trunk.named_parameters():
        role = role_of(parameter)
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached or role.task != "b", f"{name} of the running task got no gradient"
        assert not reached or role.task in (None, "b"), f"{name} of another task got a gradient"
