"""Conformal sets cover what they promise, under the law that promises it, and show what rare classes get."""

import math

import pytest
import torch

from nc_tools.metrics import (
    CONFORMAL_METHODS,
    class_coverage,
    conformal_scores,
    conformal_sets,
    fit_conformal,
    selective_accuracy,
    set_measures,
)

COUNTS = torch.tensor([400, 200, 50, 12, 6])


def sample(number, generator, shares):
    """Labels drawn by class shares, and logits of a model that is right more often on frequent classes."""
    labels = torch.multinomial(shares, number, replacement=True, generator=generator)
    logits = torch.randn(number, len(shares), generator=generator)
    logits[torch.arange(number), labels] += torch.tensor([2.5, 2.0, 1.5, 1.0, 0.5])[labels]
    return logits, labels


@pytest.mark.parametrize("method", CONFORMAL_METHODS)
def test_the_promised_coverage_holds_for_samples_of_the_same_law(method):
    generator = torch.Generator().manual_seed(0)
    shares = torch.full((5,), 0.2)
    covered, by_class = [], []
    for _ in range(60):
        logits, labels = sample(400, generator, shares)
        thresholds = fit_conformal(logits, labels, method, COUNTS, 0.1)
        logits, labels = sample(1000, generator, shares)
        values = set_measures(conformal_sets(logits, method, thresholds, COUNTS), labels, COUNTS)
        covered.append(values["coverage"])
        by_class.append(values["coverage_worst"])
    mean, error = mean_and_error(covered)
    assert mean > 0.9 - 3 * error
    if method in ("thr", "prevalence_adjusted"):  # a score without ties covers exactly ceil(.9 (n + 1)) / (n + 1)
        assert mean == pytest.approx(math.ceil(0.9 * 401) / 401, abs=3 * error)
    if method == "class_conditional":
        assert mean_and_error(by_class)[0] > 0.82
    if method == "thr":
        assert mean_and_error(by_class)[0] < 0.8  # one threshold misses the class that is hardest


def mean_and_error(values):
    spread = torch.tensor(values)
    return float(spread.mean()), float(spread.std() / len(values) ** 0.5)


def test_scores_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    assert conformal_scores(logits, "thr", [1, 1, 1])[0].tolist() == pytest.approx([0.5, 0.7, 0.8])
    assert conformal_scores(logits, "aps", [1, 1, 1])[0].tolist() == pytest.approx([0.5, 0.8, 1.0])
    adjusted = conformal_scores(logits, "prevalence_adjusted", [8, 1, 1])[0]
    assert adjusted.tolist() == pytest.approx([-0.625, -3.0, -2.0])
    many = torch.arange(10.0, 0.0, -1.0)[None] / 5
    extra = conformal_scores(many, "raps", [1] * 10) - conformal_scores(many, "aps", [1] * 10)
    assert extra[0].tolist() == pytest.approx([0.0] * 5 + [0.01, 0.02, 0.03, 0.04, 0.05])


def test_a_class_with_too_few_samples_is_in_every_set():
    logits, labels = sample(100, torch.Generator().manual_seed(1), torch.tensor([0.5, 0.49, 0.01, 0.0, 0.0]))
    thresholds = fit_conformal(logits, labels, "class_conditional", COUNTS, 0.1)
    assert thresholds[3:].tolist() == [math.inf, math.inf]
    assert bool(conformal_sets(logits, "class_conditional", thresholds, COUNTS)[:, 3:].all())
    few = fit_conformal(logits[:5], labels[:5], "thr", COUNTS, 0.1)
    assert bool(conformal_sets(logits, "thr", few, COUNTS).all())


@pytest.mark.parametrize(("miscoverage", "rank"), [(0.7, 3), (0.65, 4), (0.1, 9)])
def test_the_threshold_is_the_score_of_the_stated_rank(miscoverage, rank):
    """The ceil((n + 1) (1 - a))-th smallest of 9 scores; in floating point 10 (1 - .7) is a little more than 3."""
    logits = torch.linspace(0.0, 2.0, 9, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.0])
    labels = torch.zeros(9, dtype=torch.int64)
    scores = (1 - logits.softmax(1)[:, 0]).sort().values
    thresholds = fit_conformal(logits, labels, "thr", [5, 5], miscoverage)
    assert thresholds.tolist() == pytest.approx([float(scores[rank - 1])] * 2)


def test_clusters_give_easy_and_hard_classes_thresholds_of_their_own():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(20).repeat(60)
    logits = torch.randn(1200, 20, generator=generator)
    logits[torch.arange(1200), labels] += torch.where(labels < 10, 6.0, 1.0)
    thresholds = fit_conformal(logits, labels, "clustered", [60] * 20, 0.1)
    assert float(thresholds[:10].max()) < float(thresholds[10:].min())


def test_the_coverage_of_a_class_is_that_of_a_loop_over_its_samples():
    generator = torch.Generator().manual_seed(3)
    sets = torch.rand(200, 7, generator=generator) < 0.6
    labels = torch.randint(6, (200,), generator=generator)  # no sample of the last class
    found = class_coverage(sets, labels).tolist()
    for k in range(6):
        own = [bool(sets[i, k]) for i in range(200) if labels[i] == k]
        assert found[k] == pytest.approx(sum(own) / len(own))
    assert math.isnan(found[6])


def test_groups_of_sets_and_of_the_surest_predictions():
    sets = torch.tensor([[True, False], [True, True], [False, False], [True, False]])
    values = set_measures(sets, torch.tensor([0, 1, 1, 1]), [500, 5])
    assert (values["coverage"], values["coverage_many"], values["coverage_few"]) == pytest.approx((0.5, 1, 1 / 3))
    assert (values["size_few"], values["classes_low"], values["coverage_balanced"]) == pytest.approx((1, 0.5, 2 / 3))
    logits = torch.tensor([[9.0, 0.0], [8.0, 0.0], [0.0, 0.3], [0.2, 0.0]])
    surest = selective_accuracy(logits, torch.tensor([0, 0, 1, 1]), [500, 5], share=0.5)
    assert (surest["accuracy"], surest["kept_many"], surest["kept_few"]) == (1, 1, 0)
    assert "accuracy_few" not in surest
    # Of two samples of a rare class only the surer one counts, which is right; of the frequent class both are kept.
    logits = torch.tensor([[9.0, 0.0], [0.0, 9.0], [0.0, 8.0], [0.1, 0.0]])
    surest = selective_accuracy(logits, torch.tensor([0, 0, 1, 1]), [500, 5], share=0.75)
    assert (surest["accuracy_many"], surest["accuracy_few"], surest["kept_few"]) == (0.5, 1, 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, y: fit_conformal(z, y, "thr", COUNTS, 1.0), "between 0 and 1, got 1.0"),
        (lambda z, y: fit_conformal(z, y, "best", COUNTS), "one of thr, aps, .* got 'best'"),
        (lambda z, _: conformal_sets(z, "thr", torch.zeros(3), COUNTS), "each of 5 classes, got \\(3,\\)"),
        (lambda z, y: selective_accuracy(z, y, COUNTS, 0.0), "above 0 and at most 1, got 0.0"),
    ],
)
def test_what_they_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call(*sample(20, torch.Generator().manual_seed(0), torch.full((5,), 0.2)))
