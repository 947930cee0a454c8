"""AUROC and its relatives against scikit-learn, loops over pairs, and resampling; and the report of all scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from nc_tools.ood import KNN, SCORES, MaxLogit, auroc_interval, ood_report, separation
from nc_tools.records import Collected

numbers = st.lists(st.integers(-4, 4), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(numbers, numbers)
def test_ties_are_exact(inside, outside):
    a, b = torch.tensor(inside, dtype=torch.float64), torch.tensor(outside, dtype=torch.float64)
    values = separation(a, b)
    labels, scores = [1] * len(a) + [0] * len(b), torch.cat([a, b]).numpy()
    assert values["auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert values["aupr_in"] == pytest.approx(average_precision_score(labels, scores))
    assert values["aupr_out"] == pytest.approx(average_precision_score([1 - v for v in labels], -scores))
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert values["fpr95"] == pytest.approx(false[np.argmax(true >= 0.95 - 1e-12)])


def test_cases_by_hand():
    values = separation(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([2.0, 0.0]))
    assert values["auroc"] == pytest.approx((2 + 1.5 + 1) / 6)
    assert values["aupr_in"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert values["aupr_out"] == pytest.approx((1 + 2 / 4) / 2)
    assert values["fpr95"] == 0.5
    many = torch.arange(1.0, 21.0)  # 95 % of 20 is 19: the threshold is 2, not 1
    assert separation(many, torch.tensor([1.0, 1.5, 2.0, 3.0]))["fpr95"] == 0.5
    same = separation(torch.zeros(5), torch.zeros(15))
    assert (same["auroc"], same["fpr95"]) == (0.5, 1.0)
    assert (same["aupr_in"], same["aupr_out"]) == (0.25, 0.75)
    ends = separation(torch.tensor([math.inf]), torch.tensor([-math.inf]))
    assert (ends["auroc"], ends["fpr95"]) == (1.0, 0.0)


def test_close_float32_scores_are_distinguished_and_only_the_order_matters():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(300, generator=g) + 1, torch.randn(200, generator=g)
    values = separation(a, b)
    assert separation(a.double().exp(), b.double().exp()) == pytest.approx(values)
    assert separation(a.half(), b.half())["auroc"] == pytest.approx(values["auroc"], abs=1e-3)
    turned = separation(-b, -a)
    assert turned["auroc"] == pytest.approx(values["auroc"])
    assert turned["aupr_in"] == pytest.approx(values["aupr_out"])


def test_scores_of_a_report_are_built_scores():
    part = Collected(torch.eye(2), torch.eye(2), torch.eye(2), torch.arange(2))
    for wrong in ("knn", KNN):
        with pytest.raises(TypeError, match=r"scores must hold objects such as KNN\(k=50\), got"):
            ood_report(part, part, {"near": part}, scores=[wrong])


def test_the_interval_covers_and_has_delongs_width():
    g = torch.Generator().manual_seed(1)
    truth = 0.5 * (1 + math.erf(1 / 2))  # P(N(1, 1) > N(0, 1))
    hits = 0
    for _ in range(300):
        low, high = auroc_interval(torch.randn(80, generator=g) + 1, torch.randn(60, generator=g))
        hits += low < truth < high
    assert 0.92 < hits / 300 < 0.99
    a, b = 0.3 * torch.randn(600, generator=g) + 0.7, torch.randn(60, generator=g)  # one wide and few, one narrow
    draws = []
    for _ in range(600):
        i, j = (torch.randint(n, (n,), generator=g) for n in (600, 60))
        draws.append(separation(a[i], b[j])["auroc"])
    low, high = auroc_interval(a, b)
    assert (high - low) / (2 * 1.96) == pytest.approx(float(np.std(draws)), rel=0.15)
    low, high = auroc_interval(a, b, 0.5)
    assert (high - low) / (2 * 0.6744898) == pytest.approx(float(np.std(draws)), rel=0.15)


def test_with_many_samples_the_interval_is_delongs():
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(4000, generator=g) + 1.5, torch.randn(3000, generator=g) * 1.3
    wins = (a[:, None] > b).double()
    error = math.sqrt(float(wins.mean(1).var() / len(a) + wins.mean(0).var() / len(b)))
    value = separation(a, b)["auroc"]
    assert auroc_interval(a, b) == pytest.approx((value - 1.959964 * error, value + 1.959964 * error), abs=3e-4)


def test_without_a_misordered_sample_the_interval_is_wilsons_of_all_right():
    inside, outside = torch.arange(20.0) + 50, torch.arange(20.0)
    wilson = proportion_interval(20, 20)
    assert auroc_interval(inside, outside) == pytest.approx(wilson)
    assert auroc_interval(outside, inside) == pytest.approx((1 - wilson[1], 1 - wilson[0]))


def proportion_interval(hits, trials):
    interval = binomtest(hits, trials).proportion_ci(method="wilson")
    return interval.low, interval.high


def scores_of(kind, auroc, size, g):
    """Return inside and outside scores (size,) of a known AUROC."""
    inside, outside = torch.randn(2, *size[:1], max(size[1:]), generator=g, dtype=torch.float64)
    inside, outside = inside[:, : size[1]], outside[:, : size[2]]
    shift = float(torch.special.ndtri(torch.tensor(auroc, dtype=torch.float64)))
    if kind == "normal":
        return inside + shift * math.sqrt(2), outside
    if kind == "wide inside":
        return 3 * inside + shift * math.sqrt(10), outside
    if kind == "exponential":
        rates = -torch.rand(2, *size[:1], max(size[1:]), generator=g, dtype=torch.float64).log()
        return rates[0, :, : size[1]] * auroc / (1 - auroc), rates[1, :, : size[2]]
    alike = torch.rand(outside.shape, generator=g, dtype=torch.float64) < 2 * (1 - auroc)
    return inside + 12, outside + 12 * alike  # some outliers look like inside samples, the others do not at all


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "wide inside", "exponential", "some alike"])
@pytest.mark.parametrize("sizes", [(10, 10), (30, 30), (30, 300), (300, 30), (200, 200)])
def test_intervals_cover_near_one_too(kind, sizes):
    g, draws = torch.Generator().manual_seed(0), 1000
    for auroc in (0.7, 0.9, 0.95, 0.98, 0.99):
        inside, outside = scores_of(kind, auroc, (draws, *sizes), g)
        ends = [auroc_interval(a, b) for a, b in zip(inside, outside, strict=True)]
        covered = sum(low <= auroc <= high for low, high in ends)
        # At least 92.5 %, by a binomial test at 1e-4 for 20 cells of 5 values.
        assert binomtest(covered, draws, 0.925, alternative="less").pvalue > 1e-4, (auroc, covered)


@pytest.mark.parametrize(
    ("inside", "outside", "message"),
    [
        (
            torch.zeros(0),
            torch.zeros(3),
            r"inside set must have scores of shape \(N,\) with N >= 1, got .* \(0,\)",
        ),
        (torch.zeros(3), torch.zeros(0), r"outside set must have scores .* got the shape \(0,\)"),
        (torch.zeros(3, 1), torch.zeros(3), r"got the shape \(3, 1\)"),
        (torch.tensor([math.nan, 1.0]), torch.zeros(2), "must not be NaN, but 1 of 2 of the inside"),
    ],
)
def test_wrong_scores_are_rejected(inside, outside, message):
    with pytest.raises(ValueError, match=message):
        separation(inside, outside)


def test_wrong_types_and_confidences_are_rejected():
    with pytest.raises(TypeError, match=r"floating-point, got torch.int64 for the outside"):
        separation(torch.zeros(2), torch.zeros(2).long())
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        auroc_interval(torch.zeros(3), torch.zeros(3), 95)
    with pytest.raises(ValueError, match="at least two scores of each set, got 1 and 3"):
        auroc_interval(torch.zeros(1), torch.zeros(3))


def blobs(n=200, seed=0, away=0.0):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=g)
    x = 4 * torch.eye(3, 8)[y] + torch.randn(n, 8, generator=g) + away
    return Collected(torch.full((n, 2), torch.nan), x, x[:, :3].clone(), y)


def test_a_report_holds_every_score_of_every_set_and_reads_embedded_features():
    values = ood_report(blobs(), blobs(seed=1), {"near": blobs(60, 2, 1.5), "far": blobs(50, 3, -6)}, torch.eye(3, 8))
    names = {"auroc", "aupr_in", "aupr_out", "fpr95"}
    assert values.keys() == {f"{s}/{c.name}/{n}" for s in ("near", "far") for c in SCORES for n in names}
    assert all(0 <= value <= 1 for value in values.values())
    assert values["far/mahalanobis/auroc"] > 0.99


def test_a_report_leaves_out_what_is_not_defined():
    values = ood_report(blobs(), blobs(seed=1), {"near": blobs(60, 2)})
    assert {key.split("/")[1] for key in values} == {c.name for c in SCORES} - {"nci", "fdbd"}
    flat = Collected(*(torch.ones(9, 2) for _ in range(3)), torch.arange(9) % 2)
    values = ood_report(flat, flat, {"near": flat}, torch.eye(2))
    assert {"knn", "msp", "fdbd"} <= {key.split("/")[1] for key in values}
    assert not {"mahalanobis", "rmds", "neco"} & {key.split("/")[1] for key in values}
    assert set(values.values()) <= {0.5, 1.0}


def test_a_report_of_chosen_scores_reports_its_progress():
    names = []
    values = ood_report(blobs(), blobs(seed=1), {"x": blobs(9, 2)}, scores=[KNN(3), MaxLogit()], progress=names.append)
    assert names == ["knn", "max_logit"]
    assert len(values) == 8
    inside, outside = (KNN(3).fit(blobs().embedded, blobs().logits, blobs().labels).score_samples(p.embedded, p.logits)
                       for p in (blobs(seed=1), blobs(9, 2)))  # fmt: skip
    assert values["x/knn/auroc"] == separation(inside, outside)["auroc"]


def test_reports_without_outliers_are_rejected():
    with pytest.raises(ValueError, match="needs at least one set of outliers, got none"):
        ood_report(blobs(), blobs(), {})
    with pytest.raises(ValueError, match="'near' needs at least one sample, got none"):
        ood_report(blobs(), blobs(), {"near": blobs(0)})
    with pytest.raises(ValueError, match="two scores of a report have the name 'knn'"):
        ood_report(blobs(), blobs(), {"x": blobs()}, scores=[KNN(1), KNN(2)])
    bad = blobs()
    bad.embedded[4] = torch.nan
    with pytest.raises(ValueError, match="features must be finite, but 1 of 200 samples hold NaN"):
        ood_report(blobs(), blobs(), {"x": bad}, scores=[KNN(1)])
