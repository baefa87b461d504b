"""Methods that read the losses, against TorchJD's scalarizers through autograd and values by hand."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torchjd import scalarization

from ufo_large.balancing import METHODS
from ufo_large.balancing.go4align import group_means
from ufo_large.testing.balancing import TASKS, random_gradients, signals


def loss_curve(num_steps: int) -> Tensor:
    """Return losses [steps, 4] that fall at different rates and wiggle."""
    steps_S1 = torch.arange(num_steps, dtype=torch.float64)[:, None]
    generator = torch.Generator().manual_seed(0)
    noise_SM = torch.rand(num_steps, 4, generator=generator, dtype=torch.float64)
    rates_M = torch.tensor([0.1, 0.01, 0.05, 0.0], dtype=torch.float64)
    return (
        torch.tensor([5.0, 0.3, 1.0, 40.0], dtype=torch.float64)
        * (-rates_M * steps_S1).exp()
        * (0.8 + 0.4 * noise_SM)
    )


def slopes(scalarizer, losses_M: Tensor) -> Tensor:
    """Return the derivative of a scalarization by each loss: the weight it gives to that task's gradient."""
    losses_M = losses_M.clone().requires_grad_()
    return torch.autograd.grad(scalarizer(losses_M), losses_M)[0]


@pytest.mark.parametrize(("name", "theirs", "factor"), [("uncertainty", "UW", 2.0), ("imtl_l", "IMTLL", 1.0)])
def test_learned_scales_follow_autograd_and_adam(name, theirs, factor):
    """TorchJD's objective (UW is half of ours) trained by Adam via autograd; measured 4e-8."""
    scalarizer = getattr(scalarization, theirs)(4).double()
    optimizer = torch.optim.Adam(scalarizer.parameters(), lr=0.05)
    balancer = METHODS[name].Config(learning_rate=0.05).build(TASKS, 0)
    for step, losses_M in enumerate(loss_curve(40)):
        expected_M = factor * slopes(scalarizer, losses_M)
        assert balancer(signals(TASKS, losses_M.tolist(), None, step)).tolist() == pytest.approx(
            expected_M.tolist(), rel=1e-6
        )
        optimizer.zero_grad()
        scalarizer(losses_M).backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["uncertainty", "imtl_l"])
def test_learned_scales_settle_at_one_over_the_loss(name):
    balancer = METHODS[name].Config(learning_rate=0.1).build(TASKS, 0)
    for step in range(300):
        weights_M = balancer(signals(TASKS, [4.0, 0.5, 1.0, 2.0], None, step))
    assert weights_M.tolist() == pytest.approx([0.25, 2.0, 1.0, 0.5], rel=1e-3)


def test_famo_is_torchjds():
    """The next step's loss stands for that after the update; TorchJD's sum to 1; measured 3e-8."""
    scalarizer = scalarization.FAMO(4, lr=0.025, weight_decay=0.001).double()
    balancer = METHODS["famo"].Config().build(TASKS, 0)
    for step, losses_M in enumerate(loss_curve(40)):
        if step:
            scalarizer.update(losses_M)
        expected_M = 4 * slopes(scalarizer, losses_M)
        assert balancer(signals(TASKS, losses_M.tolist(), None, step)).tolist() == pytest.approx(
            expected_M.tolist(), rel=1e-6
        )


def test_dwa_is_torchjds():
    """A window stands for an epoch."""
    scalarizer = scalarization.DWA(temperature=0.7)
    balancer = METHODS["dwa"].Config(window=5, temperature=0.7).build(TASKS, 0)
    for step, losses_M in enumerate(loss_curve(23)):
        expected_M = slopes(scalarizer, losses_M)
        assert balancer(signals(TASKS, losses_M.tolist(), None, step)).tolist() == pytest.approx(
            expected_M.tolist(), rel=1e-12
        )
        if step % 5 == 4:
            scalarizer.step()
    assert expected_M.max() > 1.1


@pytest.mark.parametrize("mu", [0.1, 1.0])
def test_stch_is_torchjds_on_relative_log_losses(mu):
    scalarizer = scalarization.STCH(mu, weights=torch.ones(4, dtype=torch.float64))
    balancer = METHODS["stch"].Config(mu=mu, warmup_steps=10).build(TASKS, 0)
    curve_SM = loss_curve(30)
    reference_M = curve_SM[:10].mean(dim=0)
    for step, losses_M in enumerate(curve_SM):
        found_M = balancer(signals(TASKS, losses_M.tolist(), None, step))
        if step < 10:
            expected_M = 1 / losses_M
        else:
            expected_M = slopes(lambda x_M: scalarizer((x_M / reference_M).log()), losses_M)
        assert found_M.tolist() == pytest.approx((4 * expected_M / expected_M.sum()).tolist(), rel=1e-12)


def test_rlw_draws_positive_weights_around_one():
    """Over 2,000 draws the mean of a softmax of normals, times M, is 1 within 5 standard errors (0.08)."""
    balancer = METHODS["rlw"].Config().build(TASKS, 0)
    drawn_SM = torch.stack([balancer(signals(TASKS, [1.0] * 4, None, step)) for step in range(2000)])
    assert drawn_SM.min() > 0
    assert drawn_SM.sum(dim=1).tolist() == pytest.approx([4.0] * 2000)
    assert drawn_SM.mean(dim=0).tolist() == pytest.approx([1.0] * 4, abs=0.08)
    logits_SM = drawn_SM.log() - drawn_SM.log().mean(dim=1, keepdim=True)
    assert logits_SM.var().item() == pytest.approx(0.75, abs=0.06)  # normal numbers less their mean of four


def test_gradnorm_follows_autograd_on_the_vectors():
    """Equation 2 with whole gradients, differentiated by autograd and stepped by Adam."""
    alpha, gradients_MN = 1.5, random_gradients(4, 6, seed=0)
    logits_M = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits_M], lr=0.025)
    balancer = METHODS["gradnorm"].Config(alpha=alpha).build(TASKS, 0)
    curve_SM = loss_curve(30)
    for step, losses_M in enumerate(curve_SM):
        step_MN = gradients_MN * (1 + 0.1 * step)
        weights_M = 4 * logits_M.softmax(dim=0)
        found_M = balancer(signals(TASKS, losses_M.tolist(), step_MN @ step_MN.T, step))
        assert found_M.tolist() == pytest.approx(weights_M.tolist(), rel=1e-9)
        norms_M = (weights_M[:, None] * step_MN).norm(dim=1)
        progress_M = losses_M / curve_SM[0]
        target_M = (norms_M.mean() * (progress_M / progress_M.mean()) ** alpha).detach()
        optimizer.zero_grad()
        (norms_M - target_M).abs().sum().backward()
        optimizer.step()


def test_gradnorm_ends_with_equal_norms_where_all_learn_alike():
    balancer = METHODS["gradnorm"].Config(learning_rate=0.02).build(TASKS[:2], 0)
    gram_MM = torch.diag(torch.tensor([1.0, 9.0], dtype=torch.float64))
    for step in range(150):
        weights_M = balancer(signals(TASKS[:2], [1.0, 1.0], gram_MM, step))
    assert weights_M.tolist() == pytest.approx([1.5, 0.5], rel=0.05)


def test_db_mtl_stretches_the_gradients_of_log_losses():
    """Autograd through log L on two quadratic losses; the update is max(u) times the sum of unit vectors."""
    x_N = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64, requires_grad=True)
    losses = [(x_N**2).sum(), 100 * ((x_N - 3) ** 2 * torch.tensor([1.0, 0.1, 2.0])).sum() + 1]
    plain_MN = torch.stack([torch.autograd.grad(v, x_N, retain_graph=True)[0] for v in losses])
    log_MN = torch.stack([torch.autograd.grad(v.log(), x_N, retain_graph=True)[0] for v in losses])
    norms_M = log_MN.norm(dim=1)
    expected_N = ((norms_M.max() / norms_M)[:, None] * log_MN).sum(dim=0)
    values = [v.item() for v in losses]
    balancer = METHODS["db_mtl"].Config(beta=0.0).build(TASKS[:2], 0)
    update_N = balancer(signals(TASKS[:2], values, plain_MN @ plain_MN.T)) @ plain_MN
    assert (update_N / math.sqrt(values[0] * values[1])).tolist() == pytest.approx(
        expected_N.tolist(), rel=1e-12
    )


def test_db_mtl_smooths_norms_as_published():
    """u(t) = g(t) + beta / t^sigma * (u(t-1) - g(t)); the first step has no past."""
    balancer = METHODS["db_mtl"].Config(beta=0.5, sigma=1.0).build(TASKS[:2], 0)
    for step, norm in enumerate([1.0, 3.0, 5.0]):
        gram_MM = torch.diag(torch.tensor([norm, 1.0], dtype=torch.float64)).square()
        balancer(signals(TASKS[:2], [1.0, 1.0], gram_MM, step))
    second = 3.0 + 0.25 * (1.0 - 3.0)
    assert balancer.log_norms["cls"] == pytest.approx(5.0 + 0.5 / 3 * (second - 5.0))


def test_go4align_indicators_by_hand():
    """gamma <- gamma * exp(-step_size * L), normalised; weight = group mean of sum(L) / L * gamma."""
    balancer = METHODS["go4align"].Config(num_groups=4, step_size=0.1).build(TASKS, 0)
    gamma = [0.25] * 4
    for step, losses_M in enumerate(loss_curve(5)):
        losses = losses_M.tolist()
        gamma = [g * math.exp(-0.1 * v) for g, v in zip(gamma, losses, strict=True)]
        gamma = [g / sum(gamma) for g in gamma]
        expected = [sum(losses) / v * g for g, v in zip(gamma, losses, strict=True)]
        assert balancer(signals(TASKS, losses, None, step)).tolist() == pytest.approx(expected, rel=1e-9)


def brute_force_cost(values: list[float], num_groups: int) -> float:
    """Return the least squared distance to group means over all ways to colour the values."""
    best = math.inf
    for colours in itertools.product(range(num_groups), repeat=len(values)):
        groups = [[v for v, c in zip(values, colours, strict=True) if c == k] for k in range(num_groups)]
        means = [sum(g) / len(g) for g in groups if g]
        best = min(
            best, sum((v - m) ** 2 for g, m in zip([g for g in groups if g], means, strict=True) for v in g)
        )
    return best


@pytest.mark.parametrize("num_groups", [1, 2, 3, 5])
def test_group_means_are_the_best_grouping(num_groups):
    generator = torch.Generator().manual_seed(num_groups)
    for _ in range(5):
        values_M = torch.randn(5, generator=generator, dtype=torch.float64)
        means_M = group_means(values_M, num_groups)
        assert len(set(means_M.tolist())) <= num_groups
        cost = (values_M - means_M).square().sum().item()
        assert cost == pytest.approx(brute_force_cost(values_M.tolist(), num_groups), abs=1e-12)
        for mean in set(means_M.tolist()):
            assert values_M[means_M == mean].mean().item() == pytest.approx(mean)
