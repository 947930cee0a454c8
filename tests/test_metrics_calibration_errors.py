"""Class-wise, kernel, debiased, grouped and selective calibration errors against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.calibration_samples import bin_of, draw_logits, probabilities_and_labels

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


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 5), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_classwise_and_top_label_errors_equal_the_loops(seed, n, k, bins):
    logits, labels = draw_logits(seed, n, k)
    p, y = probabilities_and_labels(logits, labels)
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
    logits, labels = draw_logits(1, n=25)
    p, y = probabilities_and_labels(logits, labels)
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
    honest = [kernel_calibration_error(*draw_logits(seed, n=300, honest=1.0), bandwidth=0.5) for seed in range(20)]
    assert abs(np.mean(honest)) < 3 * np.std(honest) / math.sqrt(20)
    assert kernel_calibration_error(*draw_logits(0, n=300, honest=0.3), bandwidth=0.5) > 5 * np.std(honest)


def test_kernel_error_does_not_depend_on_its_blocks():
    logits, labels = draw_logits(2, n=1500, k=3)
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(0))
    expected = kernel_calibration_error(logits, labels, 0.4)
    assert kernel_calibration_error(logits[order], labels[order], 0.4) == pytest.approx(expected, rel=1e-9)


def reference_debiased(logits, labels, bins):
    p, y = probabilities_and_labels(logits, labels)
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
    logits, labels = draw_logits(seed, n=150, honest=0.4)
    assert debiased_calibration_error(logits, labels, 10).value == pytest.approx(
        reference_debiased(logits, labels, 10), rel=1e-9
    )


def test_debiasing_takes_the_bias_off_and_the_interval_covers():
    """At a true error of 0 the plain ECE grows as the set shrinks; the debiased square is 0 on average."""
    plain, covered, squared = [], 0, []
    for seed in range(60):
        logits, labels = draw_logits(seed, n=200, honest=1.0)
        result = debiased_calibration_error(logits, labels, resamples=200)
        assert result.low <= result.value <= max(result.high, result.value)
        covered += result.low == 0
        plain.append(expected_calibration_error(logits, labels))
        squared.append(result.value**2)
    assert np.mean(plain) > 0.05
    assert np.mean(np.sqrt(squared)) < 0.6 * np.mean(plain)
    assert covered >= 0.9 * 60


def test_interval_covers_the_true_error():
    """Two scores, sure to .8 and right with probability .6: the error is .2."""
    covered = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.tensor([[math.log(0.8), math.log(0.2)]], dtype=torch.float64).repeat(300, 1)
        labels = (torch.rand(300, generator=generator) > 0.6).long()
        result = debiased_calibration_error(logits, labels, resamples=200)
        covered += result.low <= 0.2 <= result.high
    assert covered >= 0.88 * 60


def test_small_sets_use_fewer_bins_and_one_sample_is_rejected():
    logits, labels = draw_logits(0, n=5)
    assert debiased_calibration_error(logits, labels).value == pytest.approx(reference_debiased(logits, labels, 2))
    with pytest.raises(ValueError, match="at least 2 samples"):
        debiased_calibration_error(logits[:1], labels[:1])
    with pytest.raises(ValueError, match="needs at least 2, got 1"):
        kernel_calibration_error(logits[:1], labels[:1])
    # (e_1 - p_1)(e_2 - p_2), once in each order over two pairs, by the definition.
    opposite = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    p = float(opposite.softmax(1)[0, 0])
    expected = -2 * p * (1 - p)
    assert kernel_calibration_error(opposite, torch.tensor([0, 1]), 1.0) == pytest.approx(expected)


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 5), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_brier_parts_add_up_and_equal_the_loop(seed, n, k, bins):
    logits, labels = draw_logits(seed, n, k)
    parts = brier_decomposition(logits, labels, bins)
    assert parts["brier"] == pytest.approx(calibration(logits, labels)["brier"], abs=1e-6)
    assert parts["reliability"] - parts["resolution"] + parts["uncertainty"] == pytest.approx(parts["brier"], abs=1e-9)
    p, y = probabilities_and_labels(logits, labels)
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
    logits, labels = draw_logits(seed, n)
    result = risk_coverage(logits, labels)
    p, y = probabilities_and_labels(logits, labels)
    ranked = sorted(range(n), key=lambda i: -max(p[i]))
    wrong = [float(p[i].index(max(p[i])) != y[i]) for i in ranked]
    risks = [sum(wrong[: r + 1]) / (r + 1) for r in range(n)]
    best = [sum(sorted(wrong)[: r + 1]) / (r + 1) for r in range(n)]
    assert result.risk.tolist() == pytest.approx(risks, abs=1e-9)
    assert result.coverage.tolist() == pytest.approx([(r + 1) / n for r in range(n)])
    assert result.aurc == pytest.approx(sum(risks) / n, abs=1e-9)
    assert result.excess_aurc == pytest.approx((sum(risks) - sum(best)) / n, abs=1e-9)


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


def test_groups_are_calibrated_apart():
    logits, labels = draw_logits(8, n=300, k=4)
    counts = [500, 50, 10, 10]
    result = grouped_calibration(logits, labels, counts)
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
        assert {key: result[f"{name}/{key}"] for key in expected} == pytest.approx(expected)
    assert not any(key.startswith("many") for key in grouped_calibration(logits, labels, [5] * 4))
    with pytest.raises(ValueError, match="one number for each of the 4 classes"):
        grouped_calibration(logits, labels, [1, 2])


@pytest.mark.parametrize("measure", [classwise_calibration_error, top_label_calibration_error, brier_decomposition])
def test_bins_and_bandwidths_must_be_positive(measure):
    with pytest.raises(ValueError, match="num_bins must be a whole number, at least 1"):
        measure(*draw_logits(0, n=4), 0)
    with pytest.raises(ValueError, match="bandwidth must be positive"):
        kernel_calibration_error(*draw_logits(0, n=4), 0.0)
    with pytest.raises(ValueError, match="resamples"):
        debiased_calibration_error(*draw_logits(0, n=4), resamples=0)


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
    result = debiased_calibration_error(logits, labels, num_bins=4, resamples=30, seed=5)
    drawn = torch.randint(40, (30, 40), generator=torch.Generator().manual_seed(5)).tolist()
    values = sorted(debiased_by_hand([[gap[i] for i in row if i // 10 == b] for b in range(4)]) for row in drawn)
    own = debiased_by_hand([gap[10 * b : 10 * b + 10] for b in range(4)])
    plug_in = sum(sum(gap[10 * b : 10 * b + 10]) ** 2 / 10 for b in range(4)) / 40
    low, high = (
        values[int(q * 29)] + q * 29 % 1 * (values[int(q * 29) + 1] - values[int(q * 29)]) for q in (0.025, 0.975)
    )
    assert result.value == pytest.approx(own**0.5, abs=1e-9)
    assert result.low == pytest.approx(max(own + plug_in - high, 0) ** 0.5, abs=1e-9)
    assert result.high == pytest.approx((own + plug_in - low) ** 0.5, abs=1e-9)
    assert result.low > 0


def test_the_bandwidth_is_one_where_most_predictions_are_equal():
    logits, labels = torch.tensor([[2.0, 0.0]] * 3 + [[0.0, 1.0]]), torch.tensor([0, 1, 0, 1])
    assert kernel_calibration_error(logits, labels) == kernel_calibration_error(logits, labels, bandwidth=1.0)
    assert kernel_calibration_error(logits, labels) != kernel_calibration_error(logits, labels, bandwidth=2.0)
