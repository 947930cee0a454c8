"""Memorization and suspects against slow references."""

import math

import pytest
import torch

from nc_tools.metrics import memorization, precision_at, rank_suspects


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
    assert precision_at(order, wrong, 0) is None
