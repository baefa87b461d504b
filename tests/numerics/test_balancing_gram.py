"""Methods that read the Gram matrix, against whole vectors: TorchJD, scipy and published formulas."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torchjd import aggregation

from ufo_large.balancing import METHODS
from ufo_large.balancing.bargaining import fair_weights
from ufo_large.balancing.gram import GRAM_ACCURACY
from ufo_large.balancing.projection_order import projection_orders
from ufo_large.testing.balancing import random_gradients, signals

CASES = [(2, 5, 0), (3, 6, 1), (3, 50, 2), (4, 6, 3), (5, 40, 4)]
NAMES = ("a", "b", "c", "d", "e")


def weights_of(name: str, gradients_MN: Tensor, **options) -> Tensor:
    """Return the method's weights at step 0 for these gradients, all losses 1."""
    tasks = NAMES[: len(gradients_MN)]
    balancer = METHODS[name].Config(**options).build(tasks, 0)
    return balancer(signals(tasks, [1.0] * len(tasks), gradients_MN @ gradients_MN.T))


def update_of(name: str, gradients_MN: Tensor, **options) -> Tensor:
    return weights_of(name, gradients_MN, **options) @ gradients_MN


def cosine(a_N: Tensor, b_N: Tensor) -> float:
    return (a_N @ b_N / a_N.norm() / b_N.norm()).item()


def units_from(gradients_MN: Tensor) -> Tensor:
    return gradients_MN / gradients_MN.norm(dim=1, keepdim=True)


def relative(found_N: Tensor, expected_N: Tensor) -> float:
    return ((found_N - expected_N).norm() / expected_N.norm()).item()


@pytest.fixture(params=CASES, ids=str)
def gradients_MN(request) -> Tensor:
    return random_gradients(*request.param)


def test_mgda_is_the_shortest_convex_combination(gradients_MN):
    """Against scipy's SLSQP on the whole vectors (measured 3e-7), and TorchJD's Frank-Wolfe (9e-3)."""
    jacobian = gradients_MN.numpy() / gradients_MN.norm(dim=1).min().item()
    count = len(jacobian)
    solved = minimize(
        lambda w: np.sum((w @ jacobian) ** 2),
        np.full(count, 1 / count),
        jac=lambda w: 2 * jacobian @ (w @ jacobian),
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(count)},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    expected_N = torch.from_numpy(solved.x) @ gradients_MN
    update_N = update_of("mgda", gradients_MN) / count
    assert relative(update_N, expected_N) < 1e-5
    frank_wolfe_N = aggregation.MGDA(epsilon=1e-9, max_iters=3000)(gradients_MN)
    assert update_N.norm() <= frank_wolfe_N.norm() * (1 + 1e-6)
    assert relative(update_N, frank_wolfe_N) < 2e-2


def test_pcgrad_projects_the_vectors(gradients_MN):
    """Algorithm 1 on the vectors themselves, with the order the balancer drew; measured 3e-16."""
    tasks = NAMES[: len(gradients_MN)]
    orders = projection_orders(tasks, tasks, torch.Generator().manual_seed(0))
    total_N = torch.zeros_like(gradients_MN[0])
    for gradient_N, order in zip(gradients_MN, orders, strict=True):
        projected_N = gradient_N.clone()
        for j in order:
            along = projected_N @ gradients_MN[j]
            if along < 0:
                projected_N -= along / gradients_MN[j].square().sum() * gradients_MN[j]
        total_N += projected_N
    assert relative(update_of("pcgrad", gradients_MN), total_N) < 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_pcgrad_and_gradvac_of_two_tasks_are_torchjds(seed):
    """With two tasks nothing is random; measured 3e-16 and, TorchJD adding 1e-8 to lengths, 6e-8."""
    gradients_MN = random_gradients(2, 5, seed)
    assert relative(update_of("pcgrad", gradients_MN), aggregation.PCGrad()(gradients_MN)) < 1e-12
    theirs = aggregation.GradVac(beta=0.3)
    ours = METHODS["gradvac"].Config(beta=0.3).build(NAMES[:2], 0)
    for step in range(5):
        step_MN = random_gradients(2, 5, 10 * seed + step)
        weights_M = ours(signals(NAMES[:2], [1.0, 1.0], step_MN @ step_MN.T, step))
        assert relative(weights_M @ step_MN, theirs(step_MN)) < 1e-6


def test_conflictfree_is_torchjds_config(gradients_MN):
    """Measured 2e-15."""
    assert relative(update_of("conflictfree", gradients_MN), aggregation.ConFIG()(gradients_MN)) < 1e-9


def test_conflictfree_has_equal_positive_cosines(gradients_MN):
    update_N = update_of("conflictfree", gradients_MN)
    cosines = [cosine(g_N, update_N) for g_N in gradients_MN]
    assert min(cosines) > 0 and max(cosines) - min(cosines) < 1e-9


def test_imtl_g_is_torchjds_up_to_its_sum(gradients_MN):
    """The paper's weights sum to 1, ours in absolute value to M; measured 1e-14."""
    weights_M = weights_of("imtl_g", gradients_MN)
    theirs_M = aggregation.IMTLGWeighting()(gradients_MN @ gradients_MN.T)
    assert weights_M.abs().sum().item() == pytest.approx(len(weights_M))
    assert relative(weights_M / weights_M.sum(), theirs_M) < 1e-9


def test_imtl_g_projects_equally_and_never_backwards(gradients_MN):
    update_N = update_of("imtl_g", gradients_MN)
    projections_M = gradients_MN @ update_N / gradients_MN.norm(dim=1)
    assert projections_M.min() > 0
    assert (projections_M.max() / projections_M.min() - 1).abs() < 1e-9


def test_aligned_mtl_makes_all_singular_values_the_smallest(gradients_MN):
    """Algorithm 1 by a singular value decomposition of the whole gradients; measured 6e-15."""
    left_MR, values_R, right_RN = torch.linalg.svd(gradients_MN, full_matrices=False)
    expected_N = (values_R.min() * left_MR @ right_RN).sum(dim=0)
    assert relative(update_of("aligned_mtl", gradients_MN), expected_N) < 1e-8


def test_cagrad_solves_the_primal_problem(gradients_MN):
    """max over d of min_k g_k . d with |d - g_0| <= c |g_0|, by SLSQP on the whole vectors."""
    scale = gradients_MN.norm(dim=1).mean()
    jacobian = (gradients_MN / scale).numpy()
    mean_N = jacobian.mean(axis=0)
    radius = 0.4 * np.linalg.norm(mean_N)
    start = np.append(mean_N, (jacobian @ mean_N).min())
    solved = minimize(
        lambda x: -x[-1],
        start,
        jac=lambda x: np.append(np.zeros(len(x) - 1), -1.0),
        constraints=[
            {"type": "ineq", "fun": lambda x: jacobian @ x[:-1] - x[-1]},
            {"type": "ineq", "fun": lambda x: radius**2 - np.sum((x[:-1] - mean_N) ** 2)},
        ],
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    ours_N = (update_of("cagrad", gradients_MN, c=0.4) * 1.4 / len(jacobian) / scale).numpy()
    assert np.linalg.norm(ours_N - mean_N) == pytest.approx(radius, rel=1e-6)
    assert (jacobian @ ours_N).min() >= (jacobian @ solved.x[:-1]).min() - 1e-9
    assert np.linalg.norm(ours_N - solved.x[:-1]) / np.linalg.norm(ours_N) < 1e-4


def test_cagrad_without_a_ball_is_the_sum(gradients_MN):
    assert weights_of("cagrad", gradients_MN, c=0.0).tolist() == [1.0] * len(gradients_MN)


def test_cagrad_without_a_ball_survives_any_rounding():
    """3 (0.1 / 3) is not 0.1: the least gain was looked for between two equal ends."""
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        gradients_MN = torch.randn(3, 5, generator=generator, dtype=torch.float64) * 10 ** (seed % 7 - 3)
        assert weights_of("cagrad", gradients_MN, c=0.0).tolist() == [1.0] * 3


def test_upgrad_projects_onto_the_cone_that_harms_no_task(gradients_MN):
    """Each gradient's nearest vector with J x >= 0, by SLSQP on the whole vectors; measured 2e-7."""
    jacobian = gradients_MN.numpy()
    expected_N = np.zeros(jacobian.shape[1])
    for gradient_N in jacobian:
        length = np.linalg.norm(gradient_N)
        target_N = gradient_N / length
        units_MN = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
        solved = minimize(
            lambda x, goal=target_N: 0.5 * np.sum((x - goal) ** 2),
            target_N,
            jac=lambda x, goal=target_N: x - goal,
            constraints={"type": "ineq", "fun": lambda x, u=units_MN: u @ x, "jac": lambda x, u=units_MN: u},
            options={"ftol": 1e-15, "maxiter": 1000},
        )
        expected_N += length * solved.x
    update_N = update_of("upgrad", gradients_MN)
    assert relative(update_N, torch.from_numpy(expected_N)) < 1e-5
    assert ((gradients_MN @ update_N) / gradients_MN.norm(dim=1)).min() > -1e-6 * update_N.norm()


def test_nash_mtl_meets_its_optimality_condition(gradients_MN):
    """G a = 1 / a (claim 3.1), in units of the mean norm; the small term on the diagonal costs 8e-7."""
    scaled_MN = gradients_MN / gradients_MN.norm(dim=1).mean()
    weights_M = weights_of("nash_mtl", gradients_MN)
    assert weights_M.min() > 0
    residual_M = (scaled_MN @ scaled_MN.T @ weights_M) * weights_M - 1
    assert residual_M.abs().max() < 1e-5


def test_nash_mtl_maximises_the_product_of_gains(gradients_MN):
    """The update's direction maximises sum_k log(g_k . d) at a given length (section 3), by BFGS; 3e-7."""
    units_MN = units_from(gradients_MN).numpy()

    def loss(d_N: np.ndarray) -> float:
        gains_M = units_MN @ d_N
        return 0.5 * d_N @ d_N - np.sum(np.log(gains_M)) if gains_M.min() > 0 else np.inf

    start_N = update_of("conflictfree", gradients_MN).numpy()
    solved = minimize(
        loss,
        start_N / np.linalg.norm(start_N),
        jac=lambda d_N: d_N - units_MN.T @ (1 / (units_MN @ d_N)),
        method="BFGS",
        options={"gtol": 1e-10, "maxiter": 2000},
    )
    assert relative(update_of("nash_mtl", units_from(gradients_MN)), torch.from_numpy(solved.x)) < 1e-4
    update_N = update_of("nash_mtl", gradients_MN)
    assert relative(update_N / update_N.norm(), torch.from_numpy(solved.x / np.linalg.norm(solved.x))) < 1e-4


@pytest.mark.parametrize("longest", [1.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0, 10.0])
def test_fair_weights_solve_their_equation_at_any_lengths(alpha, longest):
    """G w = w^(-1/alpha) for two to eight tasks, random and nearly opposed; 2e-4 at 1e9, by cancellation."""
    generator = torch.Generator().manual_seed(0)
    for tasks in (2, 3, 8):
        for nearness in (1.0, 0.05):
            common_N = torch.randn(1, 1000, generator=generator, dtype=torch.float64)
            signs_M = torch.tensor([1.0, -1.0] * tasks, dtype=torch.float64)[:tasks, None]
            own_MN = torch.randn(tasks, 1000, generator=generator, dtype=torch.float64)
            lengths_M = torch.logspace(0, np.log10(longest), tasks, dtype=torch.float64)
            lengths_M /= lengths_M.mean()
            units_MN = units_from((1 - nearness) * signs_M * common_N + nearness * own_MN)
            cosines_MM = units_MN @ units_MN.T
            weights_M = fair_weights(lengths_M, cosines_MM, alpha)
            left_M = lengths_M * ((cosines_MM + GRAM_ACCURACY * torch.eye(tasks)) @ (lengths_M * weights_M))
            assert bool((weights_M > 0).all())
            assert (left_M * weights_M ** (1 / alpha) - 1).abs().max() < max(1e-9, 1e-12 * longest)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fairgrad_is_torchjds(gradients_MN, alpha):
    """On the Gram matrix of gradients with mean norm 1; measured 5e-7, our small term on the diagonal."""
    scaled_MN = gradients_MN / gradients_MN.norm(dim=1).mean()
    theirs_M = aggregation.FairGradWeighting(alpha, max_iters=20_000)(scaled_MN @ scaled_MN.T)
    assert relative(weights_of("fairgrad", gradients_MN, alpha=alpha), theirs_M) < 1e-5


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_fairgrad_with_shares_meets_the_condition_of_pivrg(gradients_MN, alpha):
    """G w = (s / w)^(1 / alpha) on whole vectors of mean norm 1; measured 1e-6, the term on the diagonal."""
    scaled_MN = gradients_MN / gradients_MN.norm(dim=1).mean()
    weights_M = weights_of("fairgrad", gradients_MN, alpha=alpha, shares={"b": 3.0})
    shares_M = torch.ones(len(weights_M), dtype=torch.float64)
    shares_M[1] = 3.0
    wanted_M = (shares_M / shares_M.mean() / weights_M) ** (1 / alpha)
    assert relative(scaled_MN @ (weights_M @ scaled_MN), wanted_M) < 1e-5


def test_ntkmtl_balances_the_largest_eigenvalues_of_the_kernels(gradients_MN):
    """One sample per task: each kernel is the 1 x 1 matrix J J^T. The total squared length stays."""
    kernels = [gradient_N[None] @ gradient_N[:, None] for gradient_N in gradients_MN]
    eigenvalues_M = torch.stack([torch.linalg.eigvalsh(kernel_11)[-1] for kernel_11 in kernels])
    published_M = (eigenvalues_M.sum() / eigenvalues_M).sqrt()
    weights_M = weights_of("ntkmtl", gradients_MN)
    assert relative(weights_M * len(weights_M) ** 0.5, published_M) < 1e-12
    lengths_M = weights_M * gradients_MN.norm(dim=1)
    assert lengths_M.square().sum().item() == pytest.approx(gradients_MN.square().sum().item(), rel=1e-12)


def test_tbgn_gives_every_task_its_share(gradients_MN):
    names = NAMES[: len(gradients_MN)]
    shares = {"a": 3.0}
    scaled_M = weights_of("tbgn", gradients_MN, shares=shares) * gradients_MN.norm(dim=1)
    norm = gradients_MN.norm(dim=1).mean().item()
    total = 3.0 + len(names) - 1
    wanted = [shares.get(t, 1.0) * len(names) / total * norm for t in names]
    assert scaled_M.tolist() == pytest.approx(wanted, rel=1e-12)


def test_tbgc_clips_each_norm(gradients_MN):
    norms_M = gradients_MN.norm(dim=1)
    scaled_M = weights_of("tbgc", gradients_MN, max_norm=1.5) * norms_M
    assert scaled_M.tolist() == pytest.approx(norms_M.clamp(max=1.5).tolist(), rel=1e-12)
