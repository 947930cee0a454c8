"""Class-wise, full, debiased and selective calibration, and scalings with many parameters, against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from nc_tools.metrics import (
    brier_decomposition,
    calibration,
    classwise_calibration_error,
    debiased_calibration_error,
    expected_calibration_error,
    fit_dirichlet_scaling,
    fit_vector_scaling,
    grouped_calibration,
    kernel_calibration_error,
    risk_coverage,
    top_label_calibration_error,
)


def draw(seed: int, n: int = 200, k: int = 4, sharpness: float = 2.0, honest: float = 0.5):
    """Logits, and labels drawn from softmax(honest * logits): calibrated where honest is 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(n, k, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((honest * logits).softmax(1), 1, generator=generator).flatten()
    return logits, labels


def softmax(row):
    top = max(row)
    e = [math.exp(z - top) for z in row]
    return [v / sum(e) for v in e]


def rows_of(logits, labels):
    return [softmax(row) for row in logits.tolist()], labels.tolist()


def bin_of(p, bins):
    return next(b for b in range(bins) if p <= (b + 1) / bins or b == bins - 1)


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 5), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_classwise_and_top_label_errors_equal_the_loops(seed, n, k, bins):
    logits, labels = draw(seed, n, k)
    p, y = rows_of(logits, labels)
    classwise = 0.0
    for c in range(k):
        for b in range(bins):
            inside = [i for i in range(n) if bin_of(p[i][c], bins) == b]
            classwise += abs(sum((y[i] == c) - p[i][c] for i in inside)) / n / k
    strict = 0.0
    for c in range(k):
        for b in range(bins):
            inside = [i for i in range(n) if p[i].index(max(p[i])) == c and bin_of(max(p[i]), bins) == b]
            strict += abs(sum((y[i] == c) - max(p[i]) for i in inside)) / n
    assert classwise_calibration_error(logits, labels, bins) == pytest.approx(classwise, abs=1e-9)
    assert top_label_calibration_error(logits, labels, bins) == pytest.approx(strict, abs=1e-9)
    assert strict >= expected_calibration_error(logits, labels, bins) - 1e-9


@pytest.mark.parametrize("bandwidth", [0.3, None])
def test_kernel_error_equals_the_loop_over_pairs(bandwidth):
    logits, labels = draw(1, n=25)
    p, y = rows_of(logits, labels)
    distances = [sum(abs(a - b) for a, b in zip(p[i], p[j], strict=True)) / 2 for i in range(25) for j in range(i)]
    nu = sorted(distances)[(len(distances) - 1) // 2] if bandwidth is None else bandwidth
    total = 0.0
    for i in range(25):
        for j in range(25):
            if i != j:
                dot = sum(((y[i] == c) - p[i][c]) * ((y[j] == c) - p[j][c]) for c in range(4))
                total += dot * math.exp(-sum(abs(a - b) for a, b in zip(p[i], p[j], strict=True)) / 2 / nu)
    assert kernel_calibration_error(logits, labels, bandwidth) == pytest.approx(total / (25 * 24), rel=1e-9)


def test_kernel_error_is_zero_on_average_for_a_calibrated_model_and_not_for_another():
    honest = [kernel_calibration_error(*draw(seed, n=300, honest=1.0), bandwidth=0.5) for seed in range(20)]
    assert abs(np.mean(honest)) < 3 * np.std(honest) / math.sqrt(20)
    assert kernel_calibration_error(*draw(0, n=300, honest=0.3), bandwidth=0.5) > 5 * np.std(honest)


def test_kernel_error_does_not_depend_on_its_blocks():
    logits, labels = draw(2, n=1500, k=3)
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(0))
    whole = kernel_calibration_error(logits, labels, 0.4)
    assert kernel_calibration_error(logits[order], labels[order], 0.4) == pytest.approx(whole, rel=1e-9)


def reference_debiased(logits, labels, bins):
    p, y = rows_of(logits, labels)
    samples = sorted(((max(row), float(row.index(max(row)) == c)) for row, c in zip(p, y, strict=True)))
    total = 0.0
    for b in range(bins):
        gaps = [s[1] - s[0] for r, s in enumerate(samples) if r * bins // len(samples) == b]
        mean = sum(gaps) / len(gaps)
        variance = sum((g - mean) ** 2 for g in gaps) / (len(gaps) - 1)
        total += len(gaps) / len(samples) * (mean**2 - variance / len(gaps))
    return math.sqrt(max(total, 0.0))


@pytest.mark.parametrize("seed", range(5))
def test_debiased_error_equals_the_loop(seed):
    logits, labels = draw(seed, n=150, honest=0.4)
    assert debiased_calibration_error(logits, labels, 10).value == pytest.approx(
        reference_debiased(logits, labels, 10), rel=1e-9
    )


def test_debiasing_takes_the_bias_off_and_the_interval_covers():
    """At a true error of 0 the plain ECE grows as the set shrinks; the debiased square is 0 on average."""
    plain, covered, squared = [], 0, []
    for seed in range(60):
        logits, labels = draw(seed, n=200, honest=1.0)
        found = debiased_calibration_error(logits, labels, resamples=200)
        assert found.low <= found.value <= max(found.high, found.value)
        covered += found.low == 0
        plain.append(expected_calibration_error(logits, labels))
        squared.append(found.value**2)
    assert np.mean(plain) > 0.05
    assert np.mean(np.sqrt(squared)) < 0.6 * np.mean(plain)
    assert covered >= 0.9 * 60


def test_interval_covers_a_true_error_that_is_known():
    """Two scores, sure to .8 and right with probability .6: the error is .2."""
    covered = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.tensor([[math.log(0.8), math.log(0.2)]], dtype=torch.float64).repeat(300, 1)
        labels = (torch.rand(300, generator=generator) > 0.6).long()
        found = debiased_calibration_error(logits, labels, resamples=200)
        covered += found.low <= 0.2 <= found.high
    assert covered >= 0.88 * 60


def test_small_sets_use_fewer_bins_and_one_sample_is_refused():
    logits, labels = draw(0, n=5)
    assert debiased_calibration_error(logits, labels).value == pytest.approx(reference_debiased(logits, labels, 2))
    with pytest.raises(ValueError, match="at least 2 samples"):
        debiased_calibration_error(logits[:1], labels[:1])
    with pytest.raises(ValueError, match="at least 2 samples"):
        kernel_calibration_error(logits[:1], labels[:1])


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 5), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_brier_parts_add_up_and_equal_the_loop(seed, n, k, bins):
    logits, labels = draw(seed, n, k)
    parts = brier_decomposition(logits, labels, bins)
    assert parts["brier"] == pytest.approx(calibration(logits, labels)["brier"], abs=1e-6)
    assert parts["reliability"] - parts["resolution"] + parts["uncertainty"] == pytest.approx(parts["brier"], abs=1e-9)
    p, y = rows_of(logits, labels)
    reliability = uncertainty = 0.0
    for c in range(k):
        base = sum(label == c for label in y) / n
        uncertainty += base * (1 - base)
        for b in range(bins):
            inside = [i for i in range(n) if bin_of(p[i][c], bins) == b]
            if inside:
                gap = sum(p[i][c] - (y[i] == c) for i in inside) / len(inside)
                reliability += len(inside) / n * gap**2
    assert parts["reliability"] == pytest.approx(reliability, abs=1e-9)
    assert parts["uncertainty"] == pytest.approx(uncertainty, abs=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_risk_coverage_equals_the_loop(seed, n):
    logits, labels = draw(seed, n)
    found = risk_coverage(logits, labels)
    p, y = rows_of(logits, labels)
    ranked = sorted(range(n), key=lambda i: -max(p[i]))
    wrong = [float(p[i].index(max(p[i])) != y[i]) for i in ranked]
    risks = [sum(wrong[: r + 1]) / (r + 1) for r in range(n)]
    best = [sum(sorted(wrong)[: r + 1]) / (r + 1) for r in range(n)]
    assert found.risk.tolist() == pytest.approx(risks, abs=1e-9)
    assert found.coverage.tolist() == pytest.approx([(r + 1) / n for r in range(n)])
    assert found.aurc == pytest.approx(sum(risks) / n, abs=1e-9)
    assert found.excess_aurc == pytest.approx((sum(risks) - sum(best)) / n, abs=1e-9)


def test_equal_confidence_shares_its_errors_whatever_the_order():
    logits = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    for labels in ([1, 0, 0, 0], [0, 0, 0, 1]):
        assert risk_coverage(logits, torch.tensor(labels)).risk.tolist() == pytest.approx([0.25] * 4)
    given_score = torch.tensor([0.0, 3.0, 2.0, 1.0])
    assert risk_coverage(logits, torch.tensor([1, 0, 0, 0]), given_score).excess_aurc == pytest.approx(0.0)
    with pytest.raises(ValueError, match=r"one number for each sample \(4,\)"):
        risk_coverage(logits, torch.zeros(4).long(), torch.zeros(3))
    with pytest.raises(ValueError, match="confidence must be finite"):
        risk_coverage(logits, torch.zeros(4).long(), torch.full((4,), torch.nan))


def nll_of(z, labels):
    return float(torch.nn.functional.cross_entropy(z, labels))


def test_vector_scaling_is_the_minimum_that_another_optimizer_finds():
    logits, labels = draw(4, n=120, k=3, honest=0.4)
    log_p = logits.log_softmax(1).numpy()
    fitted = fit_vector_scaling(logits, labels, strength=0.05)

    def objective(x):
        a, b = x[:3], x[3:]
        z = log_p * a + b
        nll = np.mean(np.log(np.exp(z - z.max(1, keepdims=True)).sum(1)) + z.max(1) - z[np.arange(120), labels.numpy()])
        return nll + 0.05 * (np.mean((a - 1) ** 2) + np.mean(b**2))

    best = minimize(
        objective,
        np.r_[np.ones(3), np.zeros(3)],
        method="Nelder-Mead",
        options={"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-9, "fatol": 1e-13},
    )
    assert fitted.weight.diagonal().tolist() + fitted.bias.tolist() == pytest.approx(best.x.tolist(), abs=1e-4)
    assert nll_of(fitted(logits), labels) < nll_of(logits, labels)


def test_dirichlet_scaling_tends_to_multinomial_regression_on_log_probabilities():
    logits, labels = draw(5, n=400, k=3, honest=0.4)
    fitted = fit_dirichlet_scaling(logits, labels, strength=1e-7)
    free = LogisticRegression(C=1e6, tol=1e-10, max_iter=10_000).fit(logits.log_softmax(1).numpy(), labels.numpy())
    expected = free.predict_proba(logits.log_softmax(1).numpy())
    assert np.abs(fitted(logits).softmax(1).numpy() - expected).max() < 1e-3


def test_strong_penalties_change_nothing_and_the_dirichlet_penalty_is_the_stated_one():
    logits, labels = draw(6, n=60, k=3, honest=0.4)
    for fit in (fit_vector_scaling, fit_dirichlet_scaling):
        assert torch.allclose(fit(logits, labels, 1e6)(logits), logits.log_softmax(1), atol=1e-3)
    fitted = fit_dirichlet_scaling(logits, labels, 0.1)
    log_p = logits.log_softmax(1)

    def objective(w, b):
        change = w - torch.eye(3, dtype=torch.float64)
        off = (change.square().sum() - change.diagonal().square().sum()) / 6
        penalty = off + change.diagonal().square().mean() + b.square().mean()
        return torch.nn.functional.cross_entropy(log_p @ w.T + b, labels) + 0.1 * penalty

    w, b = fitted.weight.clone().requires_grad_(), fitted.bias.clone().requires_grad_()
    slopes = torch.autograd.grad(objective(w, b), (w, b))
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-6


def test_a_class_that_the_hold_out_lacks_is_not_ruled_out():
    logits, labels = draw(7, n=200, k=4)
    labels = labels.clamp(max=2)
    for fit in (fit_vector_scaling, fit_dirichlet_scaling):
        fitted = fit(logits, labels)
        assert float(fitted.bias.abs().max()) < 20
        assert torch.isfinite(fitted(logits)).all()
        with pytest.raises(ValueError, match=r"shape \(N, 4\)"):
            fitted(logits[:, :3])
        with pytest.raises(ValueError, match="strength must be positive"):
            fit(logits, labels, 0.0)


def test_groups_are_calibrated_apart():
    logits, labels = draw(8, n=300, k=4)
    counts = [500, 50, 10, 10]
    found = grouped_calibration(logits, labels, counts)
    for name, classes in {
        "many": [0],
        "medium": [1],
        "few": [2, 3],
        "head": [0, 1],
        "middle": [2],
        "tail": [3],
    }.items():
        chosen = torch.isin(labels, torch.tensor(classes))
        expected = calibration(logits[chosen], labels[chosen])
        assert {key: found[f"{name}/{key}"] for key in expected} == pytest.approx(expected)
    assert not any(key.startswith("many") for key in grouped_calibration(logits, labels, [5] * 4))
    with pytest.raises(ValueError, match="one number for each of the 4 classes"):
        grouped_calibration(logits, labels, [1, 2])


@pytest.mark.parametrize("measure", [classwise_calibration_error, top_label_calibration_error, brier_decomposition])
def test_bins_and_bandwidths_must_be_positive(measure):
    with pytest.raises(ValueError, match="num_bins must be a whole number, at least 1"):
        measure(*draw(0, n=4), 0)
    with pytest.raises(ValueError, match="bandwidth must be positive"):
        kernel_calibration_error(*draw(0, n=4), 0.0)
    with pytest.raises(ValueError, match="resamples"):
        debiased_calibration_error(*draw(0, n=4), resamples=0)


def test_saturated_and_large_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]])
    labels = torch.tensor([1, 1, 0])
    values = [classwise_calibration_error(logits, labels), top_label_calibration_error(logits, labels)]
    values += [kernel_calibration_error(logits, labels), debiased_calibration_error(logits, labels).value]
    values += [*brier_decomposition(logits, labels).values(), risk_coverage(logits, labels).aurc]
    values += [float(f(logits, labels)(logits).abs().max()) for f in (fit_vector_scaling, fit_dirichlet_scaling)]
    assert all(math.isfinite(value) for value in values)


def debiased_by_hand(gaps: list[list[float]]) -> float:
    """Sum over bins of n_b (mean^2 - variance of the mean), over N; a bin of one sample counts nothing."""
    total = 0.0
    for values in gaps:
        n = len(values)
        if n > 1:
            mean = sum(values) / n
            total += n * (mean**2 - sum((v - mean) ** 2 for v in values) / n / (n - 1))
    return total / sum(map(len, gaps))


def test_the_interval_of_the_debiased_error_is_the_bootstraps_about_the_plug_in_value() -> None:
    generator = torch.Generator().manual_seed(3)
    logits, labels = 4 * torch.randn(40, 3, generator=generator), torch.randint(3, (40,), generator=generator)
    confidence, guess = logits.double().softmax(1).max(1)
    order = confidence.argsort(stable=True)
    gap = ((guess == labels).double() - confidence)[order].tolist()
    found = debiased_calibration_error(logits, labels, num_bins=4, resamples=30, seed=5)
    drawn = torch.randint(40, (30, 40), generator=torch.Generator().manual_seed(5)).tolist()
    values = sorted(debiased_by_hand([[gap[i] for i in row if i // 10 == b] for b in range(4)]) for row in drawn)
    own = debiased_by_hand([gap[10 * b : 10 * b + 10] for b in range(4)])
    plug_in = sum(sum(gap[10 * b : 10 * b + 10]) ** 2 / 10 for b in range(4)) / 40
    low, high = (
        values[int(q * 29)] + q * 29 % 1 * (values[int(q * 29) + 1] - values[int(q * 29)]) for q in (0.025, 0.975)
    )
    assert found.value == pytest.approx(own**0.5, abs=1e-9)
    assert found.low == pytest.approx(max(own + plug_in - high, 0) ** 0.5, abs=1e-9)
    assert found.high == pytest.approx((own + plug_in - low) ** 0.5, abs=1e-9)
    assert found.low > 0
