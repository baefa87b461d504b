"""What holds between methods, and what no rescaling of a task's loss may change."""

import pytest
import torch
from torchjd.aggregation import AlignedMTLWeighting

from ufo_large.balancing import METHODS
from ufo_large.testing.balancing import TASKS, random_gradients, signals


def weights_of(name, gradients_MN, losses=None, **options):
    tasks = TASKS[: len(gradients_MN)]
    balancer = METHODS[name].Config(**options).build(tasks, 0)
    losses = losses or [1.0] * len(tasks)
    return balancer(signals(tasks, losses, gradients_MN @ gradients_MN.T))


@pytest.mark.parametrize("name", ["pcgrad", "upgrad", "gradvac"])
def test_without_conflict_the_surgical_methods_sum(name):
    gradients_MN = random_gradients(4, 6, seed=0).abs()
    assert weights_of(name, gradients_MN).tolist() == pytest.approx([1.0] * 4, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_upgrad_of_two_tasks_is_pcgrad(seed):
    """Measured 1e-7: the small term on the diagonal of upgrad's problem."""
    gradients_MN = random_gradients(2, 4, seed)
    expected_M = weights_of("pcgrad", gradients_MN)
    assert weights_of("upgrad", gradients_MN).tolist() == pytest.approx(expected_M.tolist(), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_gradvac_that_does_not_learn_is_pcgrad(seed):
    gradients_MN = random_gradients(4, 6, seed)
    expected_M = weights_of("pcgrad", gradients_MN)
    found_M = weights_of("gradvac", gradients_MN, beta=0.0)
    assert found_M.tolist() == pytest.approx(expected_M.tolist(), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_conflictfree_and_imtl_g_share_a_direction(seed):
    gradients_MN = random_gradients(4, 6, seed)
    a_N = weights_of("conflictfree", gradients_MN) @ gradients_MN
    b_N = weights_of("imtl_g", gradients_MN) @ gradients_MN
    assert (a_N / a_N.norm() - b_N / b_N.norm()).norm() < 1e-9


def test_fairgrad_of_one_is_nash_mtl():
    gradients_MN = random_gradients(4, 6, seed=5)
    assert torch.equal(weights_of("fairgrad", gradients_MN, alpha=1.0), weights_of("nash_mtl", gradients_MN))


def test_imtl_l_is_uncertainty():
    """One learns s, the other -s, on the same objective; measured bit-equal."""
    a, b = (METHODS[n].Config().build(TASKS, 0) for n in ("imtl_l", "uncertainty"))
    for step in range(50):
        given = signals(TASKS, [3.0 / (step + 1), 0.1, 1.0, 20.0], None, step)
        assert a(given).tolist() == pytest.approx(b(given).tolist(), rel=1e-12)


@pytest.mark.parametrize(
    "name", ["nash_mtl", "conflictfree", "imtl_g", "tbgn", "ntkmtl", "db_mtl", "autoscale"]
)
def test_rescaling_a_loss_leaves_the_direction(name):
    gradients_MN = random_gradients(4, 6, seed=2)
    rescaled_MN = gradients_MN * torch.tensor([1.0, 1000.0, 1.0, 1e-3], dtype=torch.float64)[:, None]
    before_N = weights_of(name, gradients_MN) @ gradients_MN
    after_N = weights_of(name, rescaled_MN, losses=[1.0, 1000.0, 1.0, 1e-3]) @ rescaled_MN
    assert (before_N / before_N.norm() - after_N / after_N.norm()).norm() < 1e-8


@pytest.mark.parametrize("name", [n for n, cls in METHODS.items() if cls.needs_gram and n != "tbgc"])
def test_a_common_scale_of_the_gradients_changes_nothing(name):
    """A loss scale or another unit for all gradients: the same weights (measured 4e-15)."""
    gradients_MN = random_gradients(4, 6, seed=4)
    expected_M = weights_of(name, gradients_MN)
    assert weights_of(name, 1e7 * gradients_MN).tolist() == pytest.approx(expected_M.tolist(), rel=1e-10)


def test_ntkmtl_at_one_sample_has_the_direction_of_tbgn():
    gradients_MN = random_gradients(4, 6, seed=3)
    ratios_M = weights_of("ntkmtl", gradients_MN) / weights_of("tbgn", gradients_MN)
    norms_M = gradients_MN.norm(dim=1)
    expected = norms_M.square().mean().sqrt() / norms_M.mean()
    assert ratios_M.tolist() == pytest.approx([expected.item()] * 4, rel=1e-12)


def test_autoscale_finds_the_weights_that_tbgn_ends_with():
    """On gradients whose norms do not change, freezing and normalising are the same."""
    gradients_MN = random_gradients(4, 6, seed=6)
    frozen = METHODS["autoscale"].Config(skip_steps=2, measure_steps=3).build(TASKS, 0)
    for step in range(5):
        assert frozen.needs_measurement(step, TASKS)
        frozen(signals(TASKS, [1.0] * 4, gradients_MN @ gradients_MN.T, step))
    assert not frozen.needs_measurement(5, TASKS)
    found_M = frozen(signals(TASKS, [1.0] * 4, None, step=5))
    assert found_M.tolist() == pytest.approx(weights_of("tbgn", gradients_MN).tolist(), rel=1e-12)


def test_autoscale_forgets_the_first_steps():
    frozen = METHODS["autoscale"].Config(skip_steps=3, measure_steps=2).build(TASKS[:2], 0)
    for step in range(5):
        norms = [100.0, 1.0] if step < 3 else [2.0, 8.0]
        gram_MM = torch.diag(torch.tensor(norms, dtype=torch.float64)).square()
        weights_M = frozen(signals(TASKS[:2], [1.0, 1.0], gram_MM, step))
    assert weights_M.tolist() == pytest.approx([5.0 / 2.0, 5.0 / 8.0])


def test_tbgn_does_not_blow_up_a_gradient_that_is_nearly_nothing():
    """A batch without targets: its noise stays small, while an ordinary gradient is brought to its share."""
    balancer = METHODS["tbgn"].Config().build(TASKS[:2], 0)
    ordinary_MM = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64)).square()
    for step in range(200):
        balancer(signals(TASKS[:2], [1.0, 1.0], ordinary_MM, step))
    empty_MM = torch.diag(torch.tensor([1.0, 4e-3], dtype=torch.float64)).square()
    weights_M = balancer(signals(TASKS[:2], [1.0, 1.0], empty_MM, 200))
    assert 0.9 * 2.5 < weights_M[0] < 2.6
    assert weights_M[1] * 4e-3 < 0.02 * 2.5


@pytest.mark.parametrize("seed", range(8))
def test_aligned_mtl_does_not_read_rounding_errors(seed):
    """One gradient is the sum of two others: two components, by TorchJD on the exact Gram matrix."""
    gram_MM = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 2.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    noise_MM = 3e-8 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    exact_M = AlignedMTLWeighting(pref_vector=torch.ones(3, dtype=torch.float64))(gram_MM)
    balancer = METHODS["aligned_mtl"].Config().build(TASKS[:3], 0)
    found_M = balancer(signals(TASKS[:3], [1.0] * 3, gram_MM + noise_MM + noise_MM.T))
    torch.testing.assert_close(found_M, exact_M, rtol=1e-6, atol=1e-6)
