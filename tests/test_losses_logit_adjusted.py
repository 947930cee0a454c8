"""Logit adjustment against scalar Python, in training and post hoc."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loss_variants import (
    COUNTS,
    K,
    N,
    batch_of,
    outputs_of,
)
from support.scalar_math import Row, nll

from nc_tools.losses import (
    LogitAdjustedLoss,
    adjust_logits,
    log_prior,
    logit_adjusted_cross_entropy,
)


def reference_logit_adjusted(logits: list[Row], labels: list[int], counts: list[int], tau: float) -> float:
    shifted = [[z + tau * math.log(n / sum(counts)) for z, n in zip(row, counts, strict=True)] for row in logits]
    return sum(nll(row, y) for row, y in zip(shifted, labels, strict=True)) / len(labels)


logit_rows = st.lists(st.lists(st.floats(-30, 30), min_size=K, max_size=K), min_size=1, max_size=6)


@given(logit_rows, st.floats(0, 2), st.data())
@settings(max_examples=60, deadline=None)
def test_logit_adjusted(rows: list[list[float]], tau: float, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, K - 1), min_size=len(rows), max_size=len(rows)))
    logits, target = torch.tensor(rows, dtype=torch.float64), torch.tensor(labels)
    expected = pytest.approx(reference_logit_adjusted(rows, labels, COUNTS, tau), rel=1e-5, abs=1e-5)
    assert float(LogitAdjustedLoss(COUNTS, tau)(outputs_of(logits), batch_of(target))) == expected
    assert float(logit_adjusted_cross_entropy(logits, target, COUNTS, tau)) == expected


def test_logit_adjustment_at_one_is_balanced_softmax() -> None:
    logits, labels = torch.randn(N, K, dtype=torch.float64), torch.arange(N) % K
    balanced = torch.nn.functional.cross_entropy(logits + torch.tensor(COUNTS, dtype=torch.float64).log(), labels)
    assert float(logit_adjusted_cross_entropy(logits, labels, COUNTS)) == pytest.approx(float(balanced), abs=1e-6)


def test_post_hoc_adjustment_removes_the_training_prior() -> None:
    """A Bayes classifier of the training distribution, adjusted, is the Bayes classifier of the balanced one."""
    likelihood = torch.tensor([[0.2, 0.3, 0.3, 0.2], [0.1, 0.1, 0.1, 0.7]], dtype=torch.float64)
    prior = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    trained = (likelihood * prior).log()
    adjusted = adjust_logits(trained, COUNTS).softmax(1)
    assert torch.allclose(adjusted, likelihood / likelihood.sum(1, keepdim=True), atol=1e-6)
    assert trained.argmax(1).tolist() == [0, 0]
    assert adjusted.argmax(1).tolist()[1] == 3


def test_log_prior_is_that_of_the_shares() -> None:
    """Cross-entropy does not see a common factor; whoever reads the adjusted logits does."""
    expected = [math.log(n / sum(COUNTS)) for n in COUNTS]
    assert log_prior(COUNTS).tolist() == pytest.approx(expected, rel=1e-6)
    assert adjust_logits(torch.zeros(1, K), COUNTS, tau=2.0)[0].tolist() == pytest.approx([-2 * e for e in expected])


def test_the_adjustment_of_a_class_without_samples_is_refused_with_a_way_out_that_works() -> None:
    class_counts = [4, 0, 2, 0]
    assert log_prior(class_counts).exp().tolist() == pytest.approx([4 / 6, 0, 2 / 6, 0])
    with pytest.raises(ValueError, match=r"classes \[1, 3\] have none") as refused:
        adjust_logits(torch.zeros(1, K), class_counts)
    advice = re.search(r"Pass (.*), which", str(refused.value))
    assert advice is not None
    adjusted = adjust_logits(torch.zeros(1, K), eval(advice[1]))
    assert torch.allclose(adjusted[0, 1] - adjusted[0, 0], torch.tensor(4.0).log())
