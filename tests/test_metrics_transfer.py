"""Classifiers of frozen features against scikit-learn and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from nc_tools.metrics import (
    knn_accuracy,
    linear_probe,
    nearest_class_mean,
    neural_collapse,
    transfer_report,
)
from nc_tools.metrics.transfer import few_shot
from nc_tools.metrics.transfer import knn_accuracy as knn_module
from nc_tools.metrics.transfer import probe as probe_module


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digits(classes=(7, 8, 9)):
    x, y = load_digits(return_X_y=True)
    keep = np.isin(y, classes)
    x, y = torch.tensor(x[keep], dtype=torch.float32), torch.tensor(y[keep])
    return x[::2], y[::2], x[1::2], y[1::2]


def blobs(n=400, d=6, k=5, seed=0, spread=1.0):
    means = torch.randn(k, d, generator=seeded(seed))
    y = torch.arange(n) % k
    x = means[y] + spread * torch.randn(n, d, generator=seeded(seed + 1))
    order = torch.randperm(n, generator=seeded(seed + 2))
    x, y = x[order], y[order] * 3 + 4  # labels that are not 0 to K - 1
    return x[: n // 2], y[: n // 2], x[n // 2 :], y[n // 2 :]


def test_knn_equals_scikit_learn_with_the_same_weights():
    x, y, queries, answers = blobs()
    unit = torch.nn.functional.normalize
    oracle = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    oracle.fit(unit(x).double().numpy(), y.numpy())
    expected = oracle.score(unit(queries).double().numpy(), answers.numpy())
    assert knn_accuracy(x, y, queries, answers) == pytest.approx(expected)
    assert 0.4 < expected < 1


def test_knn_caps_k_and_does_not_depend_on_blocks(monkeypatch):
    x, y, queries, answers = blobs(60)
    at_once = knn_accuracy(x, y, queries, answers, k=10_000)
    oracle = KNeighborsClassifier(30, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    assert at_once == pytest.approx(oracle.fit(x.numpy(), y.numpy()).score(queries.numpy(), answers.numpy()))
    monkeypatch.setattr(knn_module, "_KNN_ENTRIES", 1)
    assert knn_accuracy(x, y, queries, answers, k=10_000) == at_once
    # Low temperature: the nearest one decides, however many others vote.
    first = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(x.numpy(), y.numpy())
    expected = pytest.approx(first.score(queries.numpy(), answers.numpy()))
    assert knn_accuracy(x, y, queries, answers, k=30, temperature=1e-4) == expected
    assert knn_accuracy(x, y, queries, answers, k=1) == expected


def test_the_probe_is_the_regression_of_scikit_learn_at_the_chosen_strength(monkeypatch):
    x, y, queries, answers = blobs(spread=2.0)
    scaler = StandardScaler().fit(x.double())
    for strength in (1e-3, 1.0):
        monkeypatch.setattr(probe_module, "PROBE_GRID", (strength,))
        model = LogisticRegression(C=strength, max_iter=1000).fit(scaler.transform(x), y)
        expected = model.score(scaler.transform(queries), answers)
        assert linear_probe(x, y, queries, answers, seeded()) == pytest.approx(expected, abs=0.0051)
        assert expected < 0.9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_probe_chooses_its_strength_on_a_hold_out(seed):
    # 90 samples in 60 dimensions, two of which tell the class: weak penalties fit noise.
    y = (torch.arange(990) % 3) * 2
    x = torch.randn(990, 60, generator=seeded(seed))
    x[:, 0] += y
    x[:, 1] += (y == 2) * 2.0
    kept = probe_module._kept(y[:90] // 2, seeded(seed)).numpy()
    scaler = StandardScaler().fit(x[:90].double())
    z, answers = scaler.transform(x.double()), y.numpy()
    held, test = {}, {}
    for strength in probe_module.PROBE_GRID:
        model = LogisticRegression(C=strength, max_iter=5000).fit(z[:90][kept], answers[:90][kept])
        held[strength] = balanced_accuracy_score(answers[:90][~kept], model.predict(z[:90][~kept]))
        test[strength] = (
            LogisticRegression(C=strength, max_iter=5000).fit(z[:90], answers[:90]).score(z[90:], answers[90:])
        )
    chosen = max(held, key=lambda c: (round(held[c], 9), -c))
    assert linear_probe(x[:90], y[:90], x[90:], y[90:], seeded(seed)) == pytest.approx(test[chosen], abs=0.003)
    assert max(test.values()) - min(test.values()) > 0.015


def test_the_probe_does_not_depend_on_the_scale_of_a_feature_nor_a_constant_one():
    x, y, queries, answers = blobs(spread=2.0)
    factor = torch.tensor([1e-3, 1.0, 50.0, 7.0, 0.2, 1.0])
    widened = [torch.cat([part * factor + 3, torch.full((len(part), 1), 5.0)], dim=1) for part in (x, queries)]
    before = linear_probe(x, y, queries, answers, seeded())
    assert linear_probe(widened[0], y, widened[1], answers, seeded()) == pytest.approx(before, abs=0.0051)


def test_a_quarter_of_each_class_is_held_out_and_never_its_last_sample():
    y = torch.tensor([0] * 40 + [1] * 10 + [2] * 2 + [3])
    kept = probe_module._kept(y, seeded())
    held = [int((~kept[y == c]).sum()) for c in range(4)]
    assert held == [10, 2, 1, 0]
    assert not torch.equal(kept, probe_module._kept(y, seeded(1)))


def test_classes_of_one_sample_still_give_a_probe():
    x = torch.eye(3)
    assert linear_probe(x, torch.arange(3), x, torch.arange(3), seeded()) == 1.0


def test_all_shots_are_the_nearest_class_mean():
    x, y, queries, answers = blobs()
    accuracy, half = nearest_class_mean(x, y, queries, answers, shots=10_000, draws=3, generator=seeded())
    classes = sorted(set(y.tolist()))
    right = 0
    for q, a in zip(queries.double(), answers.tolist(), strict=True):
        distance = [float(((q - x[y == c].double().mean(0)) ** 2).sum()) for c in classes]
        right += classes[distance.index(min(distance))] == a
    assert accuracy == pytest.approx(right / len(queries))
    assert half == 0.0


def test_shots_are_drawn_from_their_class_without_replacement():
    # Every class has two points: with both taken, centers are exact; with one, half of the draws miss.
    x = torch.tensor([[0.0], [4.0], [9.0], [13.0]])
    y = torch.tensor([0, 0, 1, 1])
    both = nearest_class_mean(x, y, torch.tensor([[5.0], [8.0]]), torch.tensor([0, 1]), 2, 30, seeded())
    assert both == (1.0, 0.0)
    one, half = nearest_class_mean(x, y, torch.tensor([[5.0], [8.0]]), torch.tensor([0, 1]), 1, 400, seeded())
    # centers (0, 9): 5 -> 9 wrong, 8 right; (0, 13): both right; (4, 9): both; (4, 13): 8 -> 4 wrong
    assert one == pytest.approx(0.75, abs=0.05)
    assert half > 0


def test_the_interval_is_students(monkeypatch):
    values = torch.tensor([0.5, 0.7, 0.9, 0.6], dtype=torch.float64)
    low, high = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert few_shot._half_width(values) == pytest.approx((high - low) / 2)
    x, y, queries, answers = blobs()
    assert nearest_class_mean(x, y, queries, answers, 1, 1, seeded())[1] == 0.0


def test_more_shots_are_better_and_same_seeds_are_equal():
    x, y, queries, answers = digits()
    few, _ = nearest_class_mean(x, y, queries, answers, 1, 20, seeded())
    many, _ = nearest_class_mean(x, y, queries, answers, 5, 20, seeded())
    assert few < many
    assert (few, _) != (nearest_class_mean(x, y, queries, answers, 1, 20, seeded(1)))
    assert transfer_report(x, y, queries, answers, 3) == transfer_report(x, y, queries, answers, 3)


def test_the_report_on_digits():
    x, y, queries, answers = digits()
    report = transfer_report(x, y, queries, answers, seed=0)
    assert report["probe/accuracy"] > 0.95
    assert report["knn/accuracy"] > 0.95
    assert report["ncc_5/accuracy"] > report["ncc_1/accuracy"] > 0.6
    target = neural_collapse(x, y - 7)
    assert report["cdnv"] == target["cdnv"]
    assert report["nc1_trace"] == target["nc1_trace"]
    assert all(math.isfinite(value) for value in report.values())
    half = transfer_report(x.bfloat16(), y, queries.bfloat16(), answers, seed=0)
    assert half["probe/accuracy"] > 0.95


def test_wrong_input_is_rejected():
    x, y = torch.randn(6, 2, generator=seeded()), torch.tensor([4, 4, 4, 9, 9, 9])
    with pytest.raises(ValueError, match=r"2 do not \(5, 11\)"):
        transfer_report(x, y, x[:3], torch.tensor([5, 4, 11]), 0)
    with pytest.raises(ValueError, match="got 2 and 3"):
        knn_accuracy(x, y, torch.zeros(6, 3), y)
    broken = x.clone()
    broken[2, 0] = math.nan
    with pytest.raises(ValueError, match="1 test samples"):
        linear_probe(x, y, broken, y, seeded())
    with pytest.raises(ValueError, match="two classes"):
        knn_accuracy(x, torch.zeros(6, dtype=torch.long), x, torch.zeros(6, dtype=torch.long))
    with pytest.raises(ValueError, match="must be positive"):
        knn_accuracy(x, y, x, y, k=0)
    with pytest.raises(ValueError, match="at least 1"):
        nearest_class_mean(x, y, x, y, 0, 3, seeded())
