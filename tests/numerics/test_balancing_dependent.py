"""Methods that solve a problem, on blocks of gradients that share nothing, dependent and orthogonal ones.

Legend: M tasks, N numbers of a gradient, S all 2^M sets of tasks.
"""

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from torch import Tensor

from ufo_large.balancing import METHODS, bargaining
from ufo_large.balancing.bargaining import fair_weights
from ufo_large.balancing.gains import shortest_with_gains
from ufo_large.balancing.gram import GRAM_ACCURACY, definite, norms_and_cosines
from ufo_large.testing.balancing import signals
from ufo_large.testing.dependent_gradients import dependent_gradients

NAMES = tuple("abcdefgh")
SEEDS = 10  # of each kind; scipy's nnls fails in 1 of 3 with two blocks of four


def weights_of(name: str, gradients_MN: Tensor, **options) -> np.ndarray:
    tasks = NAMES[: len(gradients_MN)]
    balancer = METHODS[name].Config(**options).build(tasks, 0)
    return balancer(signals(tasks, [1.0] * len(tasks), gradients_MN @ gradients_MN.T)).numpy()


def all_sets(num_tasks: int) -> np.ndarray:
    """Return every set of tasks as a row of booleans, [S, M]."""
    return (np.arange(2**num_tasks)[:, None] >> np.arange(num_tasks)) % 2 == 1


def units_of(gradients_MN: np.ndarray) -> np.ndarray:
    return gradients_MN / np.linalg.norm(gradients_MN, axis=1, keepdims=True)


def nearest_harmless(gradients_MN: np.ndarray) -> np.ndarray:
    """Return for each gradient the nearest vector that harms no task, [M, N], by trying every set of tasks.

    The answer is the gradient's projection off the span of the tasks that hold it back; so it is the nearest
    among those of the 2^M projections that harm no task.
    """
    units_MN = units_of(gradients_MN)
    some_SMN = np.where(all_sets(len(units_MN))[:, :, None], units_MN, 0.0)
    kept_SMN = gradients_MN - gradients_MN @ np.linalg.pinv(some_SMN, rcond=1e-10) @ some_SMN
    worst_SM = (kept_SMN @ units_MN.T).min(axis=2) / np.linalg.norm(gradients_MN, axis=1)
    distances_SM = np.linalg.norm(gradients_MN - kept_SMN, axis=2)
    best_M = np.where(worst_SM > -1e-9, distances_SM, np.inf).argmin(axis=0)
    return kept_SMN[best_M, np.arange(len(units_MN))]


def enumerated(cosines_MM: np.ndarray, gains_M: np.ndarray) -> np.ndarray:
    """Solve the problem of `shortest_with_gains` by trying every set of tasks as those with equality."""
    taken_SM = all_sets(len(gains_M))
    both_SMM = taken_SM[:, :, None] & taken_SM[:, None, :]
    equations_SMM = np.where(both_SMM, cosines_MM, np.eye(len(gains_M)))
    y_SM = np.linalg.solve(equations_SMM, np.where(taken_SM, gains_M, 0.0)[:, :, None])[:, :, 0]
    broken_SM = np.maximum(-y_SM, gains_M - y_SM @ cosines_MM)
    return y_SM[broken_SM.max(axis=1).argmin()]


def test_the_solver_finds_what_trying_every_set_finds():
    """Measured 8e-8 of the largest weight, for the gains of UPGrad, of MGDA and random ones."""
    random = np.random.default_rng(0)
    for name, gradients_MN in dependent_gradients(seeds=SEEDS, spread=10.0):
        norms_M, cosines_MM = norms_and_cosines(gradients_MN @ gradients_MN.T)
        solvable_MM = definite(cosines_MM)
        random_M = random.standard_normal(len(norms_M))
        for gains_M in (*-solvable_MM, (norms_M.min() / norms_M).numpy(), random_M):
            expected_M = enumerated(solvable_MM, gains_M)
            error = np.abs(shortest_with_gains(solvable_MM, gains_M) - expected_M).max()
            assert error <= 1e-6 * np.abs(expected_M).max(), f"{name}: {error}"


def test_the_solver_agrees_with_scipys_bounded_least_squares_on_thirty_tasks():
    random = np.random.default_rng(0)
    for rank in (5, 15, 40):
        cosines_MM = definite(torch.from_numpy(np.corrcoef(random.standard_normal((30, rank)))))
        gains_M = random.standard_normal(30)
        root_MM = np.linalg.cholesky(cosines_MM)
        expected = lsq_linear(root_MM.T, np.linalg.solve(root_MM, gains_M), (0, np.inf), "bvls", tol=1e-14)
        error = np.abs(shortest_with_gains(cosines_MM, gains_M) - expected.x).max()
        assert error <= 1e-6 * expected.x.max(), f"rank {rank}: {error}"


def test_a_problem_without_solution_is_refused():
    cosines_MM = np.array([[1.0, -1.5], [-1.5, 1.0]])
    with pytest.raises(ValueError, match=r"no weights found .* gains \[1.0, 2.0\] .* choose a method"):
        shortest_with_gains(cosines_MM, np.array([1.0, 2.0]))


def test_upgrad_is_the_sum_of_the_nearest_harmless_vectors():
    """On whole vectors. The small term on the diagonal costs 1e-7 of the largest weight squared."""
    for name, gradients_MN in dependent_gradients(seeds=SEEDS, spread=10.0):
        expected_N = nearest_harmless(gradients_MN.numpy()).sum(axis=0)
        weights_M = weights_of("upgrad", gradients_MN)
        longest = gradients_MN.norm(dim=1).max().item()
        error = np.linalg.norm(weights_M @ gradients_MN.numpy() - expected_N) / longest
        assert error < 1e-6 * weights_M.max() ** 2, f"{name}: {error}"


def test_mgda_cannot_be_made_shorter():
    """u is the hull's shortest vector if and only if g_k . u >= u . u for every k; measured 5e-5."""
    for name, gradients_MN in dependent_gradients(seeds=SEEDS, spread=10.0):
        weights_M = weights_of("mgda", gradients_MN) / len(gradients_MN)
        assert weights_M.min() >= 0 and weights_M.sum() == pytest.approx(1.0)
        update_N = weights_M @ gradients_MN.numpy()
        gap = update_N @ update_N - (gradients_MN.numpy() @ update_N).min()
        assert gap < 3e-4 * gradients_MN.square().sum(dim=1).min(), f"{name}: {gap}"


@pytest.mark.parametrize("c", [0.1, 0.4, 0.9])
def test_cagrad_reaches_the_bound_of_its_dual(c):
    """No update in the ball has a least gain above g_w . g_0 + c |g_0| |g_w|, whatever w; ours has it.

    In units of the radius times the shortest gradient; measured 6e-5, and 9e-3 where gradients oppose each
    other and the small term on the diagonal bounds the weights. That term lengthens |g_0| too.
    """
    for name, gradients_MN in dependent_gradients(seeds=SEEDS, spread=10.0):
        jacobian = gradients_MN.numpy()
        mean_N = jacobian.mean(axis=0)
        radius = c * np.linalg.norm(mean_N)
        allowed = c * np.sqrt(mean_N @ mean_N + GRAM_ACCURACY * np.sum((jacobian / len(jacobian)) ** 2))
        weights_M = weights_of("cagrad", gradients_MN, c=c) * (1 + c)
        change_N = weights_M @ jacobian / len(jacobian) - mean_N
        assert np.linalg.norm(change_N) < allowed * (1 + 1e-9), name
        pull_M = weights_M - 1
        assert pull_M.min() > -1e-12, name
        mixture_N = pull_M @ jacobian / pull_M.sum()
        bound = mixture_N @ mean_N + radius * np.linalg.norm(mixture_N)
        gap = (
            (bound - (jacobian @ (mean_N + change_N)).min()) / radius / np.linalg.norm(jacobian, axis=1).min()
        )
        assert gap < 2e-2, f"{name}: {gap}"


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 10.0])
def test_fair_weights_solve_their_equation(alpha):
    """G w = w^(-1/alpha), alpha = 1 being Nash-MTL's; measured 2e-5, by cancellation under large weights."""
    for name, gradients_MN in dependent_gradients(seeds=SEEDS, spread=10.0):
        norms_M, cosines_MM = norms_and_cosines(gradients_MN @ gradients_MN.T)
        scaled_M = (norms_M / norms_M.mean()).numpy()
        weights_M = weights_of("fairgrad", gradients_MN, alpha=alpha)
        left_M = scaled_M * (definite(cosines_MM) @ (scaled_M * weights_M))
        assert weights_M.min() > 0, name
        assert np.abs(left_M * weights_M ** (1 / alpha) - 1).max() < 1e-4, name


def test_fair_weights_that_did_not_come_to_rest_are_refused(monkeypatch):
    monkeypatch.setattr(bargaining, "MOST_STEPS", 3)
    cosines_MM = torch.tensor([[1.0, -0.9], [-0.9, 1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="no fair weights found in 3 steps with alpha=2.0 .* another method"):
        fair_weights(torch.tensor([0.5, 1.5], dtype=torch.float64), cosines_MM, alpha=2.0)


def nearest_to_equal(gradients_MN: np.ndarray) -> np.ndarray:
    """Return the v whose inner products with the unit gradients are nearest to 1, on whole vectors, [N]."""
    return np.linalg.pinv(units_of(gradients_MN), rcond=1e-5).sum(axis=1)


def test_conflictfree_projects_the_sum_onto_the_direction_nearest_to_equal_cosines():
    for name, gradients_MN in dependent_gradients(seeds=SEEDS, spread=10.0):
        v_N = nearest_to_equal(gradients_MN.numpy())
        expected_N = gradients_MN.numpy().sum(axis=0) @ v_N / (v_N @ v_N) * v_N
        found_N = weights_of("conflictfree", gradients_MN) @ gradients_MN.numpy()
        error = np.linalg.norm(found_N - expected_N) / gradients_MN.norm(dim=1).max().item()
        assert error < 1e-6, f"{name}: {error}"


def test_imtl_g_projects_on_the_gradients_as_equally_as_it_can():
    for name, gradients_MN in dependent_gradients(seeds=SEEDS, spread=10.0):
        expected_M = units_of(gradients_MN.numpy()) @ nearest_to_equal(gradients_MN.numpy())
        update_N = weights_of("imtl_g", gradients_MN) @ gradients_MN.numpy()
        found_M = units_of(gradients_MN.numpy()) @ update_N
        error = np.abs(found_M / np.linalg.norm(found_M) - expected_M / np.linalg.norm(expected_M)).max()
        assert error < 1e-6, f"{name}: {error}"


@pytest.mark.parametrize("name", ["conflictfree", "imtl_g"])
def test_three_gradients_in_a_plane_may_harm_one(name):
    """By hand: e1, e2 and -(e1 + e2) / sqrt(2) have no equal cosines; the nearest harm the third."""
    gradients_MN = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-(0.5**0.5), -(0.5**0.5)]], dtype=torch.float64)
    update_N = weights_of(name, gradients_MN) @ gradients_MN.numpy()
    assert update_N / np.linalg.norm(update_N) == pytest.approx([0.5**0.5, 0.5**0.5])
