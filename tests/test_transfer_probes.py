"""Probes, imprint and rankings against scikit-learn, refits without each sample, and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.preprocessing import StandardScaler

from nc_tools.metrics import (
    fit_probe,
    fit_ridge_probe,
    imprint_accuracy,
    nearest_class_mean,
    neural_collapse,
    rank_by_collapse,
    rank_correlation,
    ridge_probe,
    transfer_report,
)
from nc_tools.metrics.transfer import probe as probe_module
from nc_tools.metrics.transfer.logistic import fit_logistic
from nc_tools.metrics.transfer.ridge import fit_ridge


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(n=120, d=6, k=4, seed=0, spread=1.5):
    """Float64 features of overlapping classes; labels that are not 0 to K - 1."""
    means = torch.randn(k, d, generator=seeded(seed), dtype=torch.float64)
    y = torch.arange(n) % k
    x = means[y] + spread * torch.randn(n, d, generator=seeded(seed + 1), dtype=torch.float64)
    order = torch.randperm(n, generator=seeded(seed + 2))
    return x[order], y[order] * 3 + 4


@pytest.mark.parametrize("strength", [1e-2, 1.0, 100.0])
def test_logistic_regression_is_that_of_scikit_learn(strength):
    x, y = blobs()
    fitted = fit_logistic(x, (y - 4) // 3, 4, strength)
    oracle = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(fitted[:, :-1].numpy(), oracle.coef_, atol=2e-3 * np.abs(oracle.coef_).max())
    bias = fitted[:, -1] - fitted[:, -1].mean()
    np.testing.assert_allclose(bias.numpy(), oracle.intercept_ - oracle.intercept_.mean(), atol=5e-3)


def test_two_classes_are_that_of_scikit_learn_at_twice_the_strength():
    x, y = blobs(k=2, spread=1.0)
    fitted = fit_logistic(x, (y - 4) // 3, 2, 0.05)
    oracle = LogisticRegression(C=0.1, tol=1e-9, max_iter=10_000).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose((fitted[1] - fitted[0])[:-1].numpy(), oracle.coef_[0], atol=1e-3)
    np.testing.assert_allclose(float(fitted[1, -1] - fitted[0, -1]), oracle.intercept_[0], atol=1e-3)


def test_a_fit_may_start_anywhere():
    x, y = blobs()
    start = torch.randn(4, 7, generator=seeded(), dtype=torch.float64)
    before = start.clone()
    again = fit_logistic(x, (y - 4) // 3, 4, 1.0, start)
    first = fit_logistic(x, (y - 4) // 3, 4, 1.0)
    again, first = (torch.cat([f[:, :-1], f[:, -1:] - f[:, -1:].mean()], 1) for f in (again, first))
    torch.testing.assert_close(again, first, atol=5e-3, rtol=0)
    assert torch.equal(start, before)


def test_a_probe_scores_features_as_they_are():
    x, y = blobs()
    x = x * torch.tensor([1e-3, 1.0, 50.0, 7.0, 0.2, 1.0]) + 3
    x[:, 3] = 5.0  # constant: it must get no weight, and must not divide by zero
    for probe in (fit_probe(x, y, seeded()), fit_ridge_probe(x, y)):
        assert probe.classes.tolist() == [4, 7, 10, 13]
        assert torch.equal(probe.weight[:, 3], torch.zeros(4, dtype=torch.float64))
        assert (probe.predict(x) == y).double().mean() > 0.5
    logistic = fit_probe(x, y, seeded())
    kept = [0, 1, 2, 4, 5]
    z = StandardScaler().fit_transform(x.numpy()[:, kept])
    oracle = LogisticRegression(C=logistic.strength, tol=1e-9, max_iter=10_000).fit(z, y.numpy())
    assert np.array_equal(oracle.predict(z), logistic.predict(x).numpy())


@pytest.mark.parametrize(("n", "d"), [(30, 5), (12, 20)])
def test_ridge_is_refitted_without_each_sample(n, d):
    x, y = blobs(n, d, 3)
    targets = torch.nn.functional.one_hot((y - 4) // 3, 3).double()
    for strength in (1e-3, 0.1, 3.0):
        fitted = fit_ridge(x, targets, [strength])
        errors = []
        for out in range(n):
            keep = torch.arange(n) != out
            a, b = x[keep] - x[keep].mean(0), targets[keep] - targets[keep].mean(0)
            w = torch.linalg.solve(a.T @ a + n * strength * torch.eye(d, dtype=torch.float64), a.T @ b)
            guess = (x[out] - x[keep].mean(0)) @ w + targets[keep].mean(0)
            errors.append((targets[out] - guess).square().mean())
        assert fitted.errors[0] == pytest.approx(float(torch.stack(errors).mean()), rel=1e-8)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (20, 30)])
def test_ridge_is_that_of_scikit_learn_and_so_is_its_choice(n, d):
    x, y = blobs(n, d, 3, spread=3.0)
    targets = torch.nn.functional.one_hot((y - 4) // 3, 3).double()
    grid = [10.0**p for p in range(-4, 3)]
    fitted = fit_ridge(x, targets, grid)
    oracle = RidgeCV(alphas=[n * s for s in grid]).fit(x.numpy(), targets.numpy())
    assert n * fitted.strength == pytest.approx(oracle.alpha_)
    np.testing.assert_allclose(fitted.weight.numpy(), oracle.coef_, atol=1e-8)
    np.testing.assert_allclose(fitted.bias.numpy(), oracle.intercept_, atol=1e-8)
    assert fitted.errors.index(min(fitted.errors)) == grid.index(pytest.approx(fitted.strength))


def test_ridge_strengths_must_be_positive():
    with pytest.raises(ValueError, match="must be positive"):
        fit_ridge(torch.eye(3), torch.eye(3), [0.0, 1.0])


def test_the_ridge_probe_standardizes_and_takes_the_best_of_its_grid():
    x, y = blobs(200, 40, 4, spread=4.0)
    a, b = slice(0, 100), slice(100, 200)
    scaler = StandardScaler().fit(x[a].numpy())
    targets = torch.nn.functional.one_hot((y[a] - 4) // 3, 4).double().numpy()
    alphas = [100 * s for s in probe_module.RIDGE_GRID]
    oracle = RidgeCV(alphas=alphas).fit(scaler.transform(x[a].numpy()), targets)
    probe = fit_ridge_probe(x[a], y[a])
    assert 100 * probe.strength == pytest.approx(oracle.alpha_)
    expected = oracle.predict(scaler.transform(x[b].numpy())).argmax(1) * 3 + 4
    assert np.array_equal(probe.predict(x[b]).numpy(), expected)
    assert ridge_probe(x[a], y[a], x[b], y[b]) == pytest.approx(float((expected == y[b].numpy()).mean()))


def test_imprint_with_all_shots_is_the_nearest_mean_of_unit_features():
    x, y = blobs(80)
    x = x * torch.rand(80, 1, generator=seeded(3), dtype=torch.float64) * 9
    accuracy, half = imprint_accuracy(x[:40], y[:40], x[40:], y[40:], 1000, 3, seeded())
    right = 0
    for row, own in zip(x[40:].tolist(), y[40:].tolist(), strict=True):
        best = {}
        for label in sorted(set(y[:40].tolist())):
            mean = [0.0] * 6
            for other, of in zip(x[:40].tolist(), y[:40].tolist(), strict=True):
                if of == label:
                    norm = math.sqrt(sum(v * v for v in other))
                    mean = [m + v / norm for m, v in zip(mean, other, strict=True)]
            norm = math.sqrt(sum(v * v for v in mean))
            best[label] = sum(m * v for m, v in zip(mean, row, strict=True)) / norm
        right += max(best, key=best.get) == own
    assert (accuracy, half) == (right / 40, 0.0)
    assert 0.3 < accuracy < 1


def test_imprint_does_not_depend_on_norms_and_the_nearest_mean_does():
    x, y = blobs(80)
    longer = x * torch.logspace(-1, 1, 80, dtype=torch.float64)[:, None]
    sets = (y[:40], x[40:], y[40:], 2, 6)
    assert imprint_accuracy(x[:40], *sets, seeded()) == imprint_accuracy(longer[:40], *sets, seeded())
    assert nearest_class_mean(x[:40], *sets, seeded()) != nearest_class_mean(longer[:40], *sets, seeded())


def test_a_class_with_fewer_samples_than_shots_gives_each_once():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.2, 1.0], [0.4, 1.0]])
    y = torch.tensor([0, 1, 1, 1])
    # The mean of class 1 lies at 0.2 : 1, whichever way three shots are drawn.
    queries = torch.tensor([[1.0, 1.21], [1.22, 1.0]])
    assert imprint_accuracy(x, y, queries, torch.tensor([1, 0]), 3, 4, seeded()) == (1.0, 0.0)


def test_the_report_has_intervals_of_random_draws():
    x, y = blobs(120)
    report = transfer_report(x[:60], y[:60], x[60:], y[60:], seed=1)
    drawn = {key.split("/")[0] for key in report if key.endswith("/interval")}
    assert drawn == {"ncc_1", "ncc_5", "imprint_1", "imprint_5"}
    assert all(report[f"{name}/interval"] > 0 for name in drawn)
    assert report["nc1_pinv"] == neural_collapse(x[:60], (y[:60] - 4) // 3)["nc1_pinv"]
    assert report["ridge/accuracy"] == ridge_probe(x[:60], y[:60], x[60:], y[60:])


@pytest.mark.parametrize(
    ("labels", "broken", "message"),
    [
        ([5, 5, 5, 5], None, "got 1 in 4 samples"),
        ([5, 9, 5, 9], math.nan, "1 training samples hold NaN"),
        ([5, 9, 5, 9], math.inf, "1 training samples hold NaN or inf"),
    ],
)
def test_a_probe_rejects_wrong_training_sets(labels, broken, message):
    x = torch.randn(4, 2, generator=seeded())
    if broken is not None:
        x[1, 1] = broken
    for fit in (lambda: fit_probe(x, torch.tensor(labels), seeded()), lambda: fit_ridge_probe(x, torch.tensor(labels))):
        with pytest.raises(ValueError, match=message):
            fit()


def test_every_classifier_rejects_one_sample_and_unseen_labels():
    x, y = torch.randn(4, 2, generator=seeded()), torch.tensor([1, 2, 1, 2])
    with pytest.raises(ValueError, match="got 1 in 1 samples"):
        fit_ridge_probe(x[:1], y[:1])
    for classifier in (
        lambda *sets: ridge_probe(*sets),
        lambda *sets: imprint_accuracy(*sets, 1, 1, seeded()),
        lambda *sets: transfer_report(*sets, seed=0),
    ):
        with pytest.raises(ValueError, match=r"1 do not \(7\)"):
            classifier(x, y, x, torch.tensor([1, 2, 7, 2]))
        with pytest.raises(ValueError, match="at least one test sample, got none"):
            classifier(x, y, x[:0], y[:0])
    with pytest.raises(ValueError, match="at least 1"):
        imprint_accuracy(x, y, x, y, 1, 0, seeded())


def ranks(values):
    """Mean ranks, by counting."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=8))
def test_rank_correlations_are_those_counted_by_hand(pairs):
    a, b = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    values = rank_correlation(a, b)
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert values.spearman is None
        return
    ra, rb = ranks(a), ranks(b)
    ma, mb = sum(ra) / len(ra), sum(rb) / len(rb)
    top = sum((x - ma) * (y - mb) for x, y in zip(ra, rb, strict=True))
    assert values.spearman == pytest.approx(
        top / math.sqrt(sum((x - ma) ** 2 for x in ra) * sum((y - mb) ** 2 for y in rb))
    )
    every = [(i, j) for i in range(len(a)) for j in range(i)]
    sign = [((a[i] > a[j]) - (a[i] < a[j])) * ((b[i] > b[j]) - (b[i] < b[j])) for i, j in every]
    untied = [sum(v[i] != v[j] for i, j in every) for v in (a, b)]
    assert values.kendall == pytest.approx(sum(sign) / math.sqrt(untied[0] * untied[1]))
    assert values.n == len(pairs)


def test_pairs_that_are_not_finite_are_left_out_and_too_few_are_undefined():
    values = rank_correlation([1.0, math.nan, 2.0, 3.0], [1.0, 5.0, 2.0, 4.0])
    assert (values.spearman, values.kendall, values.n) == (1.0, 1.0, 3)
    assert rank_correlation([1.0, 2.0], [1.0, 2.0]).spearman is None
    assert str(rank_correlation([1.0, 2.0], [1.0, 2.0])) == "not defined (n = 2)"
    assert str(values) == "Spearman +1.00, Kendall +1.00 (n = 3)"
    with pytest.raises(ValueError, match="same length, got 1 and 2"):
        rank_correlation([1.0], [1.0, 2.0])


def test_the_most_collapsed_comes_first():
    means = torch.randn(4, 6, generator=seeded(), dtype=torch.float64)
    y = torch.arange(80) % 4
    noise = torch.randn(80, 6, generator=seeded(1), dtype=torch.float64)
    features = {f"s{s}": means[y] + s * noise for s in (0.5, 0.1, 2.0, 1.0)}
    outcomes = {"s0.5": 0.8, "s0.1": 0.9, "s2.0": 0.3}
    ranking = rank_by_collapse(features, y * 5, outcomes)
    assert [row.name for row in ranking.rows] == ["s0.1", "s0.5", "s1.0", "s2.0"]
    assert ranking.rows[0].collapse["cdnv"] == neural_collapse(features["s0.1"], y)["cdnv"]
    values = ranking.correlations["nc1_pinv"]
    assert (values.spearman, values.kendall, values.n) == (-1.0, -1.0, 3)
    assert ranking.rows[2].outcome is None
    assert rank_by_collapse(features, y).correlations["cdnv"].n == 0


def test_wrong_rankings_are_rejected():
    x, y = torch.randn(8, 2, generator=seeded()), torch.arange(8) % 2
    with pytest.raises(ValueError, match="at least one checkpoint or layer"):
        rank_by_collapse({}, y)
    with pytest.raises(ValueError, match="'b' is none of a: rename or remove it"):
        rank_by_collapse({"a": x}, y, {"b": 1.0})
    with pytest.raises(ValueError, match="by must be one of nc1_pinv, nc1_trace, cdnv, got 'nc1'"):
        rank_by_collapse({"a": x}, y, by="nc1")
