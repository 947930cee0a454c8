"""Memorization, suspects and transition matrices against slow references."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.metrics import (
    anchor_transition,
    checked_transition,
    confusion_transition,
    counted_transition,
    memorization,
    precision_at,
    rank_suspects,
    transition_error,
)


def mean_of(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def reference_memorization(h, z, given_labels, true, classes):
    right = [[x for x, y, t in zip(h, given_labels, true, strict=True) if y == t == k] for k in range(classes)]
    means = [mean_of(rows) if rows else None for rows in right]
    center = mean_of([m for m in means if m])
    spread = math.sqrt(sum(math.dist(m, center) ** 2 for m in means if m) / sum(m is not None for m in means))
    wrong = [(x, s, y, t) for x, s, y, t in zip(h, z, given_labels, true, strict=True) if y != t]
    return {
        "distance_true": sum(math.dist(x, means[t]) for x, _, _, t in wrong) / len(wrong) / spread,
        "distance_given": sum(math.dist(x, means[y]) for x, _, y, _ in wrong) / len(wrong) / spread,
        "carried_over": sum(math.dist(x, means[y]) < math.dist(x, means[t]) for x, _, y, t in wrong) / len(wrong),
        "fitted": sum(s.index(max(s)) == y for _, s, y, _ in wrong) / len(wrong),
        "recovered": sum(s.index(max(s)) == t for _, s, _, t in wrong) / len(wrong),
    }


def clusters(number=4, each=25, rate=0.3, spread=0.3, seed=0):
    """Features around K corners, with labels of which a share is wrong."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.arange(number).repeat(each)
    h = 3 * torch.eye(number)[true] + spread * torch.randn(len(true), number, generator=generator)
    flip = torch.rand(len(true), generator=generator) < rate
    labels = torch.where(flip, (true + torch.randint(1, number, (len(true),), generator=generator)) % number, true)
    return h, labels, true


@pytest.mark.parametrize("seed", range(4))
def test_memorization(seed):
    h, labels, true = clusters(spread=2.0, seed=seed)
    logits = torch.randn(len(h), 4, generator=torch.Generator().manual_seed(seed))
    values = memorization(h, logits, labels, true)
    expected = reference_memorization(h.double().tolist(), logits.tolist(), labels.tolist(), true.tolist(), 4)
    assert values == pytest.approx(expected, rel=1e-5)
    scaled = memorization(7 * h + 2, logits, labels, true)
    assert scaled == pytest.approx(values, rel=1e-4)  # units and origin do not matter


def test_a_model_that_memorizes_and_one_that_does_not():
    h, labels, true = clusters()
    honest, parrot = memorization(h, h, labels, true), memorization(3 * torch.eye(4)[labels], h, labels, true)
    assert honest["carried_over"] == honest["fitted"] == 0
    assert honest["recovered"] == 1
    assert honest["distance_true"] < 0.5 < honest["distance_given"]
    assert parrot["carried_over"] == 1
    assert parrot["distance_given"] < 1e-3


def test_memorization_where_it_is_not_defined():
    h, labels, true = clusters()
    assert memorization(h, h, true, true) == {}
    assert set(memorization(h, h, (true + 1) % 4, true)) == {"fitted", "recovered"}  # no sample is labeled right
    absent = torch.cat([h, h], dim=1)[:, :5]  # a fifth class without a sample changes nothing
    assert memorization(h, absent, labels, true)["carried_over"] == memorization(h, h, labels, true)["carried_over"]
    with pytest.raises(ValueError, match="labels must lie in"):
        memorization(h, h, labels, true + 9)


def reference_suspects(h, z, labels, classes):
    """Scores sample by sample: means that leave the sample itself out, losses from exponentials."""
    losses, distances = [], []
    for i, (x, scores, y) in enumerate(zip(h, z, labels, strict=True)):
        top = max(scores)
        losses.append(top + math.log(sum(math.exp(s - top) for s in scores)) - scores[y])
        own = [other for j, other in enumerate(h) if labels[j] == y and j != i]
        means = [mean_of(rows) for k in range(classes) if k != y and (rows := [r for r, c in zip(h, labels, strict=True)
                                                                                if c == k])]  # fmt: skip
        distances.append((math.dist(x, mean_of(own)) if own else 0.0) - min(math.dist(x, m) for m in means))
    return losses, distances


@pytest.mark.parametrize("seed", range(3))
def test_suspects(seed):
    h, labels, _ = clusters(each=6, seed=seed)
    labels[0] = 4  # the only one of its class
    logits = torch.randn(len(h), 6, generator=torch.Generator().manual_seed(seed))  # the sixth has no sample
    values = rank_suspects(h, logits, labels)
    losses, distances = reference_suspects(h.double().tolist(), logits.double().tolist(), labels.tolist(), 6)
    assert values.loss.tolist() == pytest.approx(losses, rel=1e-5, abs=1e-5)
    assert values.distance.tolist() == pytest.approx(distances, rel=1e-5, abs=1e-5)
    for ranks, scores in ((values.loss_rank, values.loss.tolist()), (values.distance_rank, values.distance.tolist())):
        assert ranks.tolist() == [1 + sum(other > s for other in scores) for s in scores]
    sums = (values.loss_rank + values.distance_rank)[values.order].tolist()
    assert sums == sorted(sums)
    for i, row in enumerate(logits.tolist()):
        other_classes = [(s, k) for k, s in enumerate(row) if k != int(labels[i])]
        assert int(values.suggested[i]) == max(other_classes)[1]


def test_an_easy_case_is_ranked_perfectly():
    h, labels, true = clusters(rate=0.4)
    values = rank_suspects(h, 4 * h, labels)
    wrong = labels != true
    for order in (values.order, values.loss_rank.argsort(), values.distance_rank.argsort()):
        assert precision_at(order, wrong) == 1.0
    assert torch.equal(values.suggested[wrong], true[wrong])


def test_precision_at_k():
    order, wrong = torch.tensor([3, 1, 0, 2]), torch.tensor([True, False, False, True])
    assert precision_at(order, wrong) == 0.5
    assert precision_at(order, wrong, 1) == 1.0
    assert precision_at(order, wrong, 3) == pytest.approx(2 / 3)
    assert precision_at(order, wrong, 99) == 0.5
    assert precision_at(order, torch.zeros(4, dtype=torch.bool)) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
@settings(deadline=None)
def test_counted_transition(pairs):
    true, labels = (torch.tensor(column) for column in zip(*pairs, strict=True))
    matrix = counted_transition(true, labels, 4)
    assert (matrix.sum(1) - 1).abs().max() < 1e-12
    for i in range(4):
        row = [b for a, b in pairs if a == i]
        for j in range(4):
            assert float(matrix[i, j]) == pytest.approx(row.count(j) / len(row) if row else float(i == j))


TRUE = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.8, 0.2], [0.3, 0.1, 0.6]], dtype=torch.float64)


def noisy_posterior(count=600, sure=0.3):
    """Logits of the noisy posterior of samples, of which a share surely belongs to one class."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    clean = clean / clean.sum(1, keepdim=True)
    certain = int(sure * count)
    clean[:certain] = torch.eye(3, dtype=torch.float64)[torch.arange(certain) % 3]
    return (clean @ TRUE).clamp(min=1e-12).log(), clean


def test_anchors_find_the_matrix_of_an_exact_posterior():
    logits, _ = noisy_posterior()
    for percentile in (0.97, 1.0):
        estimate = anchor_transition(logits, percentile)
        assert transition_error(estimate, TRUE) < 1e-6
        assert (estimate.sum(1) - 1).abs().max() < 1e-9
    assert transition_error(anchor_transition(logits, 0.2), TRUE) > 0.1  # no anchor lies there


def test_the_percentile_passes_over_an_outlier():
    logits, _ = noisy_posterior()
    logits[-1] = torch.tensor([9.0, 0.0, 0.0])
    assert transition_error(anchor_transition(logits, 1.0), TRUE) > 0.05
    assert transition_error(anchor_transition(logits), TRUE) < 1e-6


def test_the_confusion_of_a_model_that_knows_the_truth_is_the_noise():
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(3).repeat(4000)
    labels = torch.multinomial(TRUE[true], 1, generator=generator).squeeze(1)
    assert transition_error(confusion_transition(torch.eye(3)[true], labels), TRUE) < 0.02
    assert torch.equal(confusion_transition(torch.eye(3)[[0, 0]], torch.tensor([0, 1]))[1:], torch.eye(3).double()[1:])


def test_transition_error_is_the_mean_total_variation():
    other = torch.tensor([[0.6, 0.3, 0.1], [0.0, 0.8, 0.2], [0.0, 0.0, 1.0]], dtype=torch.float64)
    assert transition_error(other, TRUE) == pytest.approx((0.1 + 0.0 + 0.4) / 3)
    assert transition_error(TRUE, TRUE) == 0


def test_a_matrix_is_checked_and_its_rounding_corrected():
    assert float(checked_transition([[0.333333, 0.666661], [0.0, 1.0]]).sum(1)[0]) == 1.0  # not .999994
    with pytest.raises(ValueError, match=r"row 1 sums to 0\.9: rows are true classes"):
        checked_transition(torch.tensor([[1.0, 0.0], [0.5, 0.4]]))
    with pytest.raises(ValueError, match="got 2 rows of"):
        checked_transition([[1.0], [1.0]])
    with pytest.raises(ValueError, match="probabilities"):
        checked_transition([[math.nan, 1.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="percentile must lie"):
        anchor_transition(torch.zeros(2, 2), 97)
