"""Transition matrices of label noise: counts, estimates and their errors, from two to a thousand classes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.metrics import (
    anchor_transition,
    checked_transition,
    confident_joint,
    confident_transition,
    confusion_transition,
    counted_transition,
    transition_error,
    transition_problem,
)


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


def noisy_posterior(count=600, sure=0.6):
    """Logits of the noisy posterior of samples, of which a share surely belongs to one class."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    clean = clean / clean.sum(1, keepdim=True)
    certain = int(sure * count)
    clean[:certain] = torch.eye(3, dtype=torch.float64)[torch.arange(certain) % 3]
    return (clean @ TRUE).clamp(min=1e-12).log(), clean


def test_anchors_find_the_matrix_of_an_exact_posterior():
    logits, _ = noisy_posterior()
    for percentile in (0.7, 0.97, 1.0):
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


# Many classes, long tails, no noise

COUNTS = {
    "2 classes": [300, 300],
    "2 classes, 50:1": [1500, 30],
    "10 classes": [200] * 10,
    "10 classes, 100:1": [round(5000 * 100 ** (-k / 9)) for k in range(10)],
    "34 classes": [100] * 34,
    "100 classes": [100] * 100,
    "100 classes, 20:1": [round(400 * 20 ** (-k / 99)) for k in range(100)],
    "1000 classes": [30] * 1000,
}

# With 1000 classes, 2 to 7 s each, labels without noise are left out: those of 100 classes show the same.
SIZES_AND_RATES = [
    pytest.param(counts, rate, id=f"{name}, {rate}", marks=[pytest.mark.slow] if len(counts) == 1000 else [])
    for name, counts in COUNTS.items()
    for rate in (0.0, 0.3)
    if rate or len(counts) < 1000
]


def symmetric(classes, rate):
    return torch.full((classes, classes), rate / (classes - 1)).double().fill_diagonal_(1 - rate)


def pairwise(classes, rate):
    return (1 - rate) * torch.eye(classes).double() + rate * torch.eye(classes).double().roll(1, dims=1)


def trained_on(counts, matrix, doubt=0.02, seed=0):
    """Logits that a good model of noisy labels gives: the noisy posterior of nearly certain samples; and the labels."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    clean = doubt * torch.rand(len(true), len(counts), generator=generator, dtype=torch.float64) / len(counts)
    clean[torch.arange(len(true)), true] += 1 - doubt
    posterior = clean / clean.sum(1, keepdim=True) @ matrix
    logits = (posterior + 1e-9).log() + 0.1 * torch.randn(posterior.shape, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(matrix[true], 1, generator=generator).squeeze(1)
    return logits, labels


def test_the_first_three_of_the_classes_with_few_samples_are_listed():
    def message(*samples):
        return transition_problem(torch.eye(len(samples)), torch.tensor(samples))

    assert message(1, 2, 3, 50).endswith("3 of 4 classes (class 0: 1, class 1: 2, class 2: 3)")
    assert message(1, 2, 3, 4).endswith("4 of 4 classes (class 0: 1, class 1: 2, class 2: 3, ...)")


@pytest.mark.parametrize(("counts", "rate"), SIZES_AND_RATES)
@pytest.mark.parametrize("noise", [symmetric, pairwise])
def test_anchors_find_the_noise_whatever_the_number_and_the_sizes_of_the_classes(counts, noise, rate):
    matrix = noise(len(counts), rate)
    logits, _ = trained_on(counts, matrix)
    estimate = anchor_transition(logits)
    assert bool((estimate.sum(1) - 1).abs().max() < 1e-9)
    assert float((estimate.diagonal() - matrix.diagonal()).abs().max()) < 0.12
    assert transition_error(estimate, matrix) < 0.07
    assert transition_problem(estimate, logits.argmax(1).bincount(minlength=len(counts))) is None


@pytest.mark.parametrize(("counts", "rate"), SIZES_AND_RATES)
def test_confident_learning_finds_the_noise_from_held_out_labels(counts, rate):
    matrix = pairwise(len(counts), rate)
    logits, labels = trained_on(counts, matrix)
    estimate = confident_transition(logits, labels)
    assert bool((estimate.sum(1) - 1).abs().max() < 1e-9)
    if rate and counts == [1500, 30]:  # fifteen times as many wrong labels of the rare class as right ones
        assert "not on the diagonal" in (transition_problem(estimate, torch.tensor(counts)) or "")
        return
    # Three labels of a class of 30 tell its noise to about .08.
    assert transition_error(estimate, matrix) < (0.005 if rate == 0 else 0.1)


@pytest.mark.parametrize("classes", [10, 100])
def test_a_perfect_model_of_clean_labels_shows_no_noise(classes):
    y = torch.arange(10_000) % classes
    generator = torch.Generator().manual_seed(0)
    logits = 12 * torch.eye(classes)[y] + 0.01 * torch.randn(10_000, classes, generator=generator)
    for estimate in (anchor_transition(logits), confusion_transition(logits, y), confident_transition(logits, y)):
        assert float(estimate.diagonal().min()) > 0.999


def test_a_class_that_no_sample_is_assigned_to_has_the_identitys_row():
    logits = torch.tensor([[4.0, 0.0, 1.0], [0.0, 4.0, 1.0], [0.0, 3.0, 1.0]])
    assert torch.equal(anchor_transition(logits)[2], torch.eye(3).double()[2])
    assert torch.equal(confident_transition(logits, torch.tensor([0, 1, 1]))[2], torch.eye(3).double()[2])


def slow_confident_joint(p, y, classes):
    """Confident learning sample by sample."""
    means = [[row[k] for row, label in zip(p, y, strict=True) if label == k] for k in range(classes)]
    thresholds = [sum(part) / len(part) if part else math.inf for part in means]
    counts = [[0.0] * classes for _ in range(classes)]
    for row, label in zip(p, y, strict=True):
        passing = [k for k in range(classes) if row[k] >= thresholds[k] - 1e-6]
        if passing:
            counts[max(passing, key=lambda k: row[k])][label] += 1
    for label in range(classes):
        column = sum(row[label] for row in counts)
        if column == 0 and label in y:
            counts[label][label] = column = 1.0
        for row in counts:
            row[label] *= y.count(label) / column / len(y) if column else 0.0
    return counts


@given(st.integers(0, 500), st.integers(2, 5), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_the_confident_joint_is_that_of_a_loop(seed, classes, count):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=generator)
    joint = confident_joint(logits, labels)
    expected = slow_confident_joint(logits.softmax(1).tolist(), labels.tolist(), classes)
    assert joint.tolist() == [pytest.approx(row) for row in expected]
    assert float(joint.sum()) == pytest.approx(1)
    assert joint.sum(0).tolist() == pytest.approx((labels.bincount(minlength=classes) / count).tolist())


def test_what_a_matrix_must_have_to_be_used():
    enough = torch.tensor([40, 40, 40])
    assert transition_problem(TRUE, enough) is None
    problem = transition_problem(TRUE, torch.tensor([40, 2, 0]))
    assert problem == "the model assigns fewer than 20 samples to 2 of 3 classes (class 1: 2, class 2: 0)"
    assert transition_problem(TRUE, torch.tensor([40, 20, 19]), enough=19) is None
    swapped = TRUE[[1, 0, 2]]
    assert "the largest entry of 2 of 3 rows is not on the diagonal (row 0: 0.8 in column 1, 0" in (
        transition_problem(swapped, enough) or ""
    )
    assert transition_problem(torch.full((2, 2), 0.5), torch.tensor([40, 40])) is None  # a tie is no contradiction
    with pytest.raises(ValueError, match=r"matrix \(K, K\) and samples \(K,\) must fit"):
        transition_problem(TRUE, torch.tensor([40, 40]))


def test_bad_input_of_the_estimates():
    with pytest.raises(ValueError, match="labels must lie in"):
        confident_joint(torch.zeros(2, 2), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="logits must be finite"):
        anchor_transition(torch.tensor([[math.nan, 0.0]]))
    with pytest.raises(TypeError, match="integer class indices"):
        confident_transition(torch.zeros(2, 2), torch.zeros(2))
