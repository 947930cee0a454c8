"""The nearest simplex ETF: against a search over all ETFs, the papers' form, and what must hold for any means."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.geometry import haar_frame, nearest_simplex_etf, simplex_etf


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def etf(classes, dim, seed):
    return simplex_etf(classes, dim, generator=torch.Generator().manual_seed(seed))


def objective(frame, means, previous=None, delta=0.0):
    """||Y - W / sqrt(K)||^2 + (delta / 2) ((K - 1) / K) ||W - W'||^2, entry by entry."""
    classes, dim = len(means), len(means[0])
    center = [sum(row[d] for row in means) / classes for d in range(dim)]
    centered = [[row[d] - center[d] for d in range(dim)] for row in means]
    norm = math.sqrt(sum(v * v for row in centered for v in row))
    total = 0.0
    for k in range(classes):
        for d in range(dim):
            total += (centered[k][d] / norm - frame[k][d] / math.sqrt(classes)) ** 2
            if previous is not None:
                total += delta / 2 * (classes - 1) / classes * (frame[k][d] - previous[k][d]) ** 2
    return total


def search(means, previous, delta):
    """The least objective that a quasi-Newton search over all rotations and reflections of one ETF finds."""
    classes, dim = means.shape
    start = simplex_etf(classes, dim).numpy()
    above = np.triu_indices(dim, 1)
    best = math.inf
    for mirror in (1.0, -1.0):
        mirrored = start * np.array([mirror] + [1.0] * (dim - 1))

        def value(angles, mirrored=mirrored):
            skew = np.zeros((dim, dim))
            skew[above] = angles
            frame = mirrored @ scipy.linalg.expm(skew - skew.T)
            return objective(frame.tolist(), means.tolist(), None if previous is None else previous.tolist(), delta)

        if dim == 1:  # nothing to turn
            best = min(best, value([]))
            continue
        for seed in range(4):
            guess = np.random.default_rng(seed).normal(size=len(above[0]))
            best = min(best, scipy.optimize.minimize(value, guess, tol=1e-12).fun)
    return best


@pytest.mark.parametrize(("classes", "dim"), [(2, 1), (3, 2), (3, 4), (4, 3)])
@pytest.mark.parametrize("delta", [0.0, 0.7])
def test_no_etf_is_nearer(classes, dim, delta):
    means = random(classes, dim, seed=classes + dim)
    previous = etf(classes, dim, 5) if delta else None
    nearest = nearest_simplex_etf(means, previous, delta)
    value = objective(nearest.tolist(), means.tolist(), None if previous is None else previous.tolist(), delta)
    assert value == pytest.approx(search(means, previous, delta), abs=1e-7)


@given(st.integers(2, 12), st.integers(0, 20), st.integers(0, 2**31), st.sampled_from([0.0, 1e-3, 2.0]))
@settings(max_examples=60, deadline=None)
def test_it_is_an_etf_and_beats_random_ones(classes, spare, seed, delta):
    dim = classes - 1 + spare
    means, previous = random(classes, dim, seed=seed), etf(classes, dim, seed + 1)
    nearest = nearest_simplex_etf(means, previous, delta)
    gram = (classes * torch.eye(classes, dtype=torch.float64) - 1) / (classes - 1)
    assert float((nearest @ nearest.T - gram).abs().max()) < 1e-12
    assert nearest.dtype == torch.float64
    ours = objective(nearest.tolist(), means.tolist(), previous.tolist(), delta)
    for other in (previous, etf(classes, dim, seed + 2)):
        assert ours <= objective(other.tolist(), means.tolist(), previous.tolist(), delta) + 1e-9


@pytest.mark.parametrize(("classes", "dim"), [(3, 3), (5, 9), (10, 64)])
def test_without_a_previous_frame_it_is_the_papers(classes, dim):
    """P = polar((2 / sqrt(K - 1)) Y C), W = sqrt(K / (K - 1)) C P^T, in numpy; D >= K."""
    means = random(classes, dim, seed=3).numpy()
    centering = np.eye(classes) - 1 / classes
    y = centering @ means
    p, _ = scipy.linalg.polar(2 / math.sqrt(classes - 1) * (y / np.linalg.norm(y)).T @ centering)
    expected = math.sqrt(classes / (classes - 1)) * centering @ p.T
    np.testing.assert_allclose(nearest_simplex_etf(torch.tensor(means)), expected, atol=1e-10)


def test_with_one_it_is_the_papers_where_the_direction_outside_the_frame_does_not_meet_the_means():
    classes, dim, delta = 5, 12, 0.4
    previous = etf(classes, dim, 1).numpy()
    means = random(classes, dim, seed=2).numpy()
    outside = np.linalg.svd(np.vstack([previous, means - means.mean(0)]))[2][-1]
    centering = np.eye(classes) - 1 / classes
    p_previous = math.sqrt((classes - 1) / classes) * previous.T + np.outer(outside, np.ones(classes)) / classes**0.5
    np.testing.assert_allclose(p_previous.T @ p_previous, np.eye(classes), atol=1e-12)
    y = centering @ means
    p, _ = scipy.linalg.polar(2 / math.sqrt(classes - 1) * (y / np.linalg.norm(y)).T @ centering + delta * p_previous)
    expected = math.sqrt(classes / (classes - 1)) * centering @ p.T
    ours = nearest_simplex_etf(torch.tensor(means), torch.tensor(previous), delta)
    np.testing.assert_allclose(ours, expected, atol=1e-10)


@pytest.mark.parametrize("dim", [5, 6, 20])
def test_it_turns_shifts_scales_and_permutes_with_the_means(dim):
    means = random(6, dim, seed=4)
    nearest, turn = nearest_simplex_etf(means), haar_frame(dim, dim, generator=torch.Generator().manual_seed(9))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.allclose(nearest_simplex_etf(means @ turn), nearest @ turn, atol=1e-10)
    assert torch.allclose(nearest_simplex_etf(3.0 * means + random(dim, seed=8)), nearest, atol=1e-10)
    assert torch.allclose(nearest_simplex_etf(means[order]), nearest[order], atol=1e-10)
    assert torch.allclose(nearest_simplex_etf(nearest), nearest, atol=1e-12)


def test_delta_holds_on_to_the_previous_frame():
    means, previous = random(5, 8, seed=1), etf(5, 8, 2)
    moved = [float((nearest_simplex_etf(means, previous, d) - previous).norm()) for d in (0.0, 0.1, 1.0, 10.0, 1e6)]
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 1e-5
    assert torch.allclose(nearest_simplex_etf(means, previous), nearest_simplex_etf(means), atol=1e-7)


def test_the_previous_frame_decides_what_the_means_leave_open():
    """Two of six classes have means, which fix one line only."""
    previous = etf(6, 9, 3)
    means = torch.zeros(6, 9, dtype=torch.float64)
    means[0], means[1] = previous[0] - previous[1], previous[1] - previous[0]
    assert torch.allclose(nearest_simplex_etf(means, previous), previous, atol=1e-6)
    assert torch.allclose(nearest_simplex_etf(torch.ones(6, 9), previous), previous, atol=1e-6)
    means[0] = random(9, seed=1)
    means[1] = -means[0]
    nearest = nearest_simplex_etf(means, previous)
    assert torch.nn.functional.cosine_similarity(nearest[0] - nearest[1], means[0], dim=0) > 1 - 1e-9
    assert torch.allclose(nearest, nearest_simplex_etf(means, previous, 1e-6), atol=1e-4)


def test_no_gradient_flows_through_the_means():
    assert not nearest_simplex_etf(random(3, 4).requires_grad_()).requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(5, 3),), "needs feature_dim >= 4, got 3: give the head projection=4"),
        ((torch.zeros(1, 3),), "at least 2 classes"),
        ((torch.zeros(3, 3), torch.zeros(3, 4)), r"previous must have the shape of means, \(3, 3\)"),
        ((torch.zeros(3, 3), torch.zeros(3, 3), -0.1), "delta must be finite and at least 0, got -0.1"),
        ((torch.zeros(3, 3), None, 0.1), "delta=0.1 needs a previous ETF, got previous=None"),
        ((torch.full((3, 3), math.nan),), "means must be finite"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        nearest_simplex_etf(*arguments)
