"""Features and head optimized freely: the losses' optima are those that theory and an independent solver give.

min over W (K, D) and H (N, D) of  mean_i CE(W h_i, y_i) + lambda / (2 N) (||W||^2 + ||H||^2)

has a known geometry where classes are balanced (a simplex), and in the limit of small lambda where they are not: the
simplex-encoded labels interpolation (SELI), Z = Y - 11^T / K = V L U^T, W = V L^1/2, H = L^1/2 U^T (Thrampoulidis et
al. 2022).
"""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from nc_tools.heads import LinearHead
from nc_tools.losses import CrossEntropyLoss, FeatureDecayLoss, WeightedSumLoss, term
from nc_tools.metrics import neural_collapse
from nc_tools.records import Batch

K = 4
Array = NDArray[np.float64]


def optimized(counts: list[int], strength: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight, features and labels at the optimum, found with this package's losses and head by L-BFGS."""
    labels = torch.arange(K).repeat_interleave(torch.tensor(counts))
    total = len(labels)
    generator = torch.Generator().manual_seed(0)
    head = LinearHead(K, K, bias=False, generator=generator).double()
    h = torch.randn(total, K, dtype=torch.float64, generator=generator).requires_grad_()
    # mean_i ||h_i||^2 / 2 is ||H||^2 / (2 N): the weight's decay has the same strength / N.
    loss = WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(strength, FeatureDecayLoss())]).double()
    loss.set_progress(0.0)
    batch = Batch(h.detach(), labels, torch.arange(total))
    optimizer = torch.optim.LBFGS(
        [h, *head.parameters()], max_iter=5000, max_eval=20000, history_size=50, line_search_fn="strong_wolfe",
        tolerance_grad=1e-11, tolerance_change=1e-16,
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(head.outputs(h), batch) + strength / (2 * total) * head.weight.square().sum()
        torch.autograd.backward(value)
        return value

    optimizer.step(closure)  # type: ignore[arg-type]
    return head.weight.detach(), h.detach(), labels


def solved(counts: list[int], strength: float) -> tuple[Array, Array]:
    """Return weight and class features of the same problem by scipy, written out in NumPy.

    All samples of a class share their optimal feature, so that the problem has one for each class, n_k times.
    """
    n = np.array(counts, dtype=float)
    total, eye = n.sum(), np.eye(K)

    def problem(x: Array) -> tuple[float, Array]:
        w, h = x.reshape(2, K, K)
        z = h @ w.T
        top = z.max(1, keepdims=True)
        log_norm = top[:, 0] + np.log(np.exp(z - top).sum(1))
        value = (n * (log_norm - np.diag(z))).sum() / total
        value += strength / (2 * total) * ((w**2).sum() + (n[:, None] * h**2).sum())
        error = n[:, None] * (np.exp(z - log_norm[:, None]) - eye) / total
        by_w, by_h = error.T @ h + strength / total * w, error @ w + strength / total * n[:, None] * h
        return value, np.stack([by_w, by_h]).ravel()

    start = np.random.default_rng(1).normal(size=2 * K * K)
    options = {"maxiter": 100_000, "maxfun": 200_000, "ftol": 1e-16, "gtol": 1e-12, "maxcor": 40}
    actual = minimize(problem, start, jac=True, method="L-BFGS-B", options=options).x
    w, h = actual.reshape(2, K, K)
    return w, h


def cosines(rows: Array) -> Array:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def seli(counts: list[int]) -> tuple[Array, Array]:
    """Return W and class features of the simplex-encoded labels interpolation."""
    y = np.repeat(np.eye(K), counts, axis=1)
    v, spectrum, u = np.linalg.svd(y - 1 / K, full_matrices=False)
    first = np.cumsum([0, *counts[:-1]])
    return v * np.sqrt(spectrum), (u.T * np.sqrt(spectrum))[first]


def test_balanced_cross_entropy_ends_in_the_simplex() -> None:
    weight, h, labels = optimized([5] * K, strength=0.02)
    actual = neural_collapse(h, labels, weight, num_classes=K)
    simplex = torch.eye(K, dtype=torch.float64) * K / (K - 1) - 1 / (K - 1)
    means = torch.stack([h[labels == k].mean(0) for k in range(K)])
    for rows in (weight, means):
        torch.testing.assert_close(torch.from_numpy(cosines(rows.numpy())), simplex, atol=1e-4, rtol=0)
        norms = rows.norm(dim=1)
        assert float(norms.std() / norms.mean()) < 1e-4
    torch.testing.assert_close(means / means.norm(), weight / weight.norm(), atol=1e-4, rtol=0)
    assert actual["nc1_trace"] < 1e-8
    assert float(weight.sum(0).norm()) < 1e-4


@pytest.mark.parametrize("strength", [0.05, 0.005])
def test_imbalanced_cross_entropy_is_where_another_solver_finds_it(strength: float) -> None:
    counts = [10, 10, 1, 1]
    weight, h, labels = optimized(counts, strength)
    w, class_h = solved(counts, strength)
    # The optimum is unique up to a rotation of the features: Gram matrices and logits are what can be compared.
    np.testing.assert_allclose(weight @ weight.T, w @ w.T, atol=1e-4 * np.abs(w @ w.T).max())
    logits, expected = h @ weight.T, (class_h @ w.T)[labels]
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    assert (h.numpy() ** 2).sum() == pytest.approx((weight.numpy() ** 2).sum(), rel=1e-4)


@pytest.mark.parametrize(
    ("ratio", "majority", "minority", "cross", "norms"),
    [(10, -0.4590, 0.0794, -0.3821, 0.7079), (100, -0.4757, 0.5607, -0.4523, 0.5796)],
)
def test_the_oracle_has_these_angles(ratio: int, majority: float, minority: float, cross: float, norms: float) -> None:
    w, _ = seli([ratio, ratio, 1, 1])
    actual = cosines(w)
    assert [actual[0, 1], actual[2, 3], actual[0, 2]] == pytest.approx([majority, minority, cross], abs=1e-4)
    assert np.linalg.norm(w[2]) / np.linalg.norm(w[0]) == pytest.approx(norms, abs=1e-4)


def test_imbalanced_cross_entropy_nears_the_oracle_as_decay_falls() -> None:
    """Not the simplex: at a large decay minority rows fall together, at a small one they end where SELI has them."""
    counts = [10, 10, 1, 1]
    w, _ = seli(counts)
    oracle = cosines(w)
    strengths = (1e-1, 1e-2, 1e-4, 1e-6)
    distances = [float(np.abs(cosines(solved(counts, strength)[0]) - oracle).max()) for strength in strengths]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.5 * distances[0]
    assert distances[-1] < 0.05
    assert abs(oracle[2, 3] + 1 / (K - 1)) > 0.4
