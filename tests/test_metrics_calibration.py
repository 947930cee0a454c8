"""Calibration against loops, scikit-learn, torchmetrics on probabilities and scipy's optimizer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from nc_tools.metrics import (
    calibration,
    equal_mass_calibration_error,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)


def draw(seed: int, n: int = 300, k: int = 5, sharpness: float = 3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(n, k, generator=generator)
    labels = torch.multinomial((logits / 2).softmax(1), 1, generator=generator).flatten()
    return logits, labels


def softmax(row) -> list[float]:
    top = max(row)
    e = [math.exp(z - top) for z in row]
    return [v / sum(e) for v in e]


def reference(logits, labels, bins: int = 15) -> dict[str, float]:
    """The four measures by loops in float64."""
    rows, y = logits.double().tolist(), labels.tolist()
    n = len(y)
    nll = brier = 0.0
    samples = []
    for row, c in zip(rows, y, strict=True):
        p = softmax(row)
        nll += -(row[c] - max(row) - math.log(sum(math.exp(z - max(row)) for z in row))) / n
        brier += sum((q - (i == c)) ** 2 for i, q in enumerate(p)) / n
        samples.append((max(p), float(p.index(max(p)) == c)))
    ece = 0.0
    for b in range(bins):
        inside = [s for s in samples if b / bins < s[0] <= (b + 1) / bins]
        ece += abs(sum(s[1] - s[0] for s in inside)) / n
    samples.sort()
    mass = 0.0
    for b in range(bins):
        inside = [s for r, s in enumerate(samples) if r * bins // n == b]
        mass += abs(sum(s[1] - s[0] for s in inside)) / n
    return {"nll": nll, "brier": brier, "ece": ece, "ece_mass": mass}


@pytest.mark.parametrize(("n", "k"), [(300, 5), (40, 3), (7, 2), (1, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_loops(n, k, dtype):
    logits, labels = draw(n, n, k)
    assert calibration(logits.to(dtype), labels) == pytest.approx(reference(logits, labels), rel=1e-5, abs=1e-6)


def test_equals_other_libraries_on_probabilities():
    logits, labels = draw(0)
    values = calibration(logits, labels)
    p = logits.softmax(1)
    assert values["nll"] == pytest.approx(
        log_loss(labels, logits.double().softmax(1).numpy(), labels=range(5)), rel=1e-5
    )
    assert values["ece"] == pytest.approx(float(multiclass_calibration_error(p, labels, 5, n_bins=15)), abs=1e-6)
    assert values["ece"] == expected_calibration_error(logits, labels)
    assert values["ece_mass"] == equal_mass_calibration_error(logits, labels)


def test_logits_inside_the_unit_interval_are_still_logits():
    generator = torch.Generator().manual_seed(0)
    cosine = torch.rand(200, 10, generator=generator)
    labels = cosine.argmax(1)
    guessed = float(multiclass_calibration_error(cosine, labels, 10, n_bins=15))
    meant = float(multiclass_calibration_error(cosine.softmax(1), labels, 10, n_bins=15))
    assert expected_calibration_error(cosine, labels) == pytest.approx(meant, abs=1e-6)
    assert abs(guessed - meant) > 0.5


def test_a_bin_holds_its_upper_edge_and_a_saturated_prediction_is_in_the_last_bin():
    half = torch.zeros(1, 2)
    assert reliability_bins(half, torch.tensor([0]), num_bins=2).count == [1, 0]
    assert reliability_bins(half, torch.tensor([0]), num_bins=10).count[4] == 1
    assert reliability_bins(torch.tensor([[1e4, -1e4]]), torch.tensor([0])).count[-1] == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), bins=st.integers(1, 30), n=st.integers(1, 80))
def test_bins_add_up_to_the_error_and_both_errors_are_bounded(seed, bins, n):
    logits, labels = draw(seed, n)
    table = reliability_bins(logits, labels, bins)
    assert sum(table.count) == n
    assert table.edges[0] == 0
    assert table.edges[-1] == 1
    gap = sum(c * abs(a - p) / n for c, a, p in zip(table.count, table.accuracy, table.confidence, strict=True) if c)
    assert gap == pytest.approx(expected_calibration_error(logits, labels, bins), abs=1e-9)
    assert all((a is None) == (c == 0) for c, a in zip(table.count, table.accuracy, strict=True))
    for c, p, low, high in zip(table.count, table.confidence, table.edges, table.edges[1:], strict=False):
        assert c == 0 or low - 1e-9 <= p <= high + 1e-9
    assert gap <= reference(logits, labels, 1)["ece"] + 1 + 1e-9
    assert 0 <= equal_mass_calibration_error(logits, labels, bins) <= 1
    one = expected_calibration_error(logits, labels, 1)
    assert one == pytest.approx(equal_mass_calibration_error(logits, labels, 1), abs=1e-9)
    assert one <= gap + 1e-9


def test_equal_mass_does_not_depend_on_the_order_of_tied_samples():
    # Half of the 60 undecided samples are right; by chance of order, a single bin is over or under one half.
    logits = torch.cat([torch.zeros(60, 2), draw(1, 30, 2)[0]])
    labels = torch.cat([torch.arange(60) % 2, draw(1, 30, 2)[1]])
    values = {
        round(equal_mass_calibration_error(logits[p], labels[p]), 12)
        for p in (torch.randperm(90, generator=torch.Generator().manual_seed(s)) for s in range(8))
    }
    assert len(values) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_saturated_logits_are_finite(dtype):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]]).to(dtype)
    right, wrong = calibration(logits, torch.tensor([0, 1])), calibration(logits, torch.tensor([1, 0]))
    assert right == pytest.approx(dict.fromkeys(right, 0.0), abs=1e-12)
    assert wrong == pytest.approx({"nll": 2e4, "brier": 2.0, "ece": 1.0, "ece_mass": 1.0}, rel=5e-3)


def nll(log_t: float, logits: np.ndarray, labels: np.ndarray) -> float:
    z = logits / math.exp(log_t)
    z = z - z.max(axis=1, keepdims=True)
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), sharpness=st.sampled_from([0.3, 1.0, 3.0, 20.0]), k=st.integers(2, 8))
def test_the_temperature_is_the_optimum_of_scipy(seed, sharpness, k):
    logits, labels = draw(seed, 200, k, sharpness)
    z, y = logits.double().numpy(), labels.numpy()
    assume((z.argmax(1) != y).mean() > 0.05)
    best = minimize_scalar(nll, bounds=(-8, 8), args=(z, y), method="bounded", options={"xatol": 1e-10})
    assume(abs(best.x) < 7)
    values = fit_temperature(logits, labels)
    assert nll(math.log(values), z, y) <= best.fun + 1e-12
    assert math.log(values) == pytest.approx(best.x, abs=2e-5)


def test_a_calibrated_set_needs_no_change_and_scaling_the_logits_scales_the_temperature():
    logits, _ = draw(0, 20_000, 4)
    labels = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).flatten()
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(1, abs=0.03)
    assert fit_temperature(250 * logits, labels) == pytest.approx(250 * temperature, rel=1e-5)
    before, after = (
        calibration(5 * logits, labels),
        calibration(5 * logits / fit_temperature(5 * logits, labels), labels),
    )
    assert after["nll"] < before["nll"]
    assert after["ece"] < 0.1 * before["ece"]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("n", [1, 5, 50, 5000])
def test_a_perfect_hold_out_is_as_confident_as_its_size_allows(n, scale):
    generator = torch.Generator().manual_seed(n)
    labels = torch.randint(0, 4, (n,), generator=generator)
    logits = scale * (torch.rand(n, 4, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 4))
    temperature = fit_temperature(logits, labels)
    confidence = (logits.double() / temperature).softmax(1).amax(1).mean()
    assert float(confidence) == pytest.approx((n + 1) / (n + 2), abs=1e-8)


def test_the_other_ends_are_finite_too():
    logits, _ = draw(0, 100, 3)
    worse_than_chance = fit_temperature(logits, logits.argmin(1))
    assert worse_than_chance == pytest.approx(1e3 * float((logits.amax(1) - logits.amin(1)).max()), rel=1e-6)
    assert fit_temperature(torch.ones(4, 3), torch.tensor([0, 1, 2, 0])) == 1.0
    tied = torch.tensor([[1.0, 1.0, 0.0]]).repeat(6, 1)
    assert 0 < fit_temperature(tied, torch.tensor([0, 1] * 3)) < 1
    assert fit_temperature(torch.tensor([[1e4, -1e4], [1e4, -1e4]]), torch.tensor([0, 1])) > 1e6


def test_wrong_input_is_rejected():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        expected_calibration_error(torch.zeros(2, 2), torch.tensor([0, 1]), 0)
    for measure in (calibration, fit_temperature, reliability_bins, equal_mass_calibration_error):
        with pytest.raises(ValueError, match="1 of 2 samples"):
            measure(torch.tensor([[0.0, 1.0], [math.inf, 0.0]]), torch.tensor([0, 1]))
