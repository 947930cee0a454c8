"""Losses for noisy labels against scalar references that import neither torch.nn.functional nor nc_tools."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loss_variants import LogitsHead, batch_of, outputs_of
from support.scalar_math import log_softmax
from torch import Tensor

from nc_tools.losses import (
    ActivePassiveLoss,
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    EarlyLearningLoss,
    ForwardCorrectionLoss,
    GeneralizedCrossEntropyLoss,
    LossTerm,
    NCEAndMAELoss,
    NCEAndRCELoss,
    SymmetricCrossEntropyLoss,
    mean_absolute_error,
)

K = 4
rows = st.lists(st.lists(st.floats(-20, 20), min_size=K, max_size=K), min_size=1, max_size=5)
T = [[0.7, 0.2, 0.1, 0.0], [0.0, 0.6, 0.1, 0.3], [0.1, 0.1, 0.8, 0.0], [0.25, 0.25, 0.25, 0.25]]


def reference_gce(z: list[float], y: int, q: float) -> float:
    p = math.exp(log_softmax(z)[y])
    return (1 - p**q) / q


def reference_rce(z: list[float], y: int, log_zero: float) -> float:
    """-sum_k p_k log t_k with t one-hot."""
    return -sum(math.exp(lp) * (0.0 if k == y else log_zero) for k, lp in enumerate(log_softmax(z)))


def reference_nce(z: list[float], y: int) -> float:
    """Cross-entropy with the label over the sum of cross-entropies with every label."""
    entropies = [-lp for lp in log_softmax(z)]
    return entropies[y] / sum(entropies)


def reference_forward(z: list[float], y: int) -> float:
    return -math.log(sum(T[i][y] * math.exp(lp) for i, lp in enumerate(log_softmax(z))))


def reference_mae(z: list[float], y: int) -> float:
    """Half of the L1 distance between softmax and one-hot."""
    return sum(abs(math.exp(lp) - (k == y)) for k, lp in enumerate(log_softmax(z))) / 2


def mean_of(function, z: list[list[float]], labels: list[int]) -> float:
    return sum(function(row, y) for row, y in zip(z, labels, strict=True)) / len(labels)


def value(loss: LossTerm, z: list[list[float]], labels: list[int]) -> float:
    return float(loss.double()(outputs_of(torch.tensor(z, dtype=torch.float64)), batch_of(torch.tensor(labels))))


def labels_for(z: list[list[float]], data: st.DataObject) -> list[int]:
    return data.draw(st.lists(st.integers(0, K - 1), min_size=len(z), max_size=len(z)))


@given(rows, st.floats(0.05, 1), st.data())
@settings(max_examples=50, deadline=None)
def test_generalized_cross_entropy(z, q, data) -> None:
    y = labels_for(z, data)
    expected = mean_of(lambda row, k: reference_gce(row, k, q), z, y)
    assert value(GeneralizedCrossEntropyLoss(q), z, y) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@given(rows, st.floats(0, 2), st.floats(0, 2), st.floats(-10, -0.1), st.data())
@settings(max_examples=50, deadline=None)
def test_symmetric_cross_entropy(z, alpha, beta, log_zero, data) -> None:
    y = labels_for(z, data)
    expected = mean_of(lambda row, k: -alpha * log_softmax(row)[k] + beta * reference_rce(row, k, log_zero), z, y)
    assert value(SymmetricCrossEntropyLoss(alpha, beta, log_zero), z, y) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@given(rows, st.floats(-10, -0.1), st.data())
@settings(max_examples=20, deadline=None)
def test_both_parts_of_a_pair_are_what_it_trains_on(z, log_zero, data) -> None:
    y = torch.tensor(labels_for(z, data))
    logits = torch.tensor(z, dtype=torch.float64)
    for pair in (NCEAndRCELoss(0.5, 2.0, log_zero), NCEAndMAELoss(0.5, 2.0)):
        parts = 0.5 * pair.active(logits, y) + 2.0 * pair.passive(logits, y)
        assert value(pair, z, y.tolist()) == pytest.approx(float(parts.mean()), rel=1e-7, abs=1e-9)


@given(rows, st.floats(0, 10), st.floats(0, 10), st.data())
@settings(max_examples=50, deadline=None)
def test_active_passive(z, alpha, beta, data) -> None:
    y = labels_for(z, data)
    with_rce = mean_of(lambda row, k: alpha * reference_nce(row, k) + beta * reference_rce(row, k, -4.0), z, y)
    with_mae = mean_of(lambda row, k: alpha * reference_nce(row, k) + beta * reference_mae(row, k), z, y)
    assert value(NCEAndRCELoss(alpha, beta), z, y) == pytest.approx(with_rce, rel=1e-7, abs=1e-9)
    assert value(NCEAndMAELoss(alpha, beta), z, y) == pytest.approx(with_mae, rel=1e-7, abs=1e-9)
    assert value(ActivePassiveLoss(alpha, beta), z, y) == pytest.approx(with_rce, rel=1e-7, abs=1e-9)
    own = ActivePassiveLoss(0.0, beta, passive=mean_absolute_error)
    assert value(own, z, y) == pytest.approx(beta * mean_of(reference_mae, z, y), rel=1e-7, abs=1e-9)


@given(rows, st.data())
@settings(max_examples=50, deadline=None)
def test_forward_correction(z, data) -> None:
    y = labels_for(z, data)
    assert value(ForwardCorrectionLoss(K, T), z, y) == pytest.approx(
        mean_of(reference_forward, z, y), rel=1e-6, abs=1e-6
    )


def test_limits_of_generalized_cross_entropy() -> None:
    z, y = torch.randn(9, K, dtype=torch.float64), torch.arange(9) % K
    outputs, batch = outputs_of(z), batch_of(y)
    cross_entropy = float(CrossEntropyLoss()(outputs, batch))
    own = z.softmax(1).gather(1, y[:, None])
    assert float(GeneralizedCrossEntropyLoss(0.0)(outputs, batch)) == pytest.approx(cross_entropy, rel=1e-12)
    # float32 too: 1 - p^q would lose all its digits here
    assert float(GeneralizedCrossEntropyLoss(1e-6)(outputs_of(z.float()), batch)) == pytest.approx(
        cross_entropy, rel=1e-5
    )
    assert float(GeneralizedCrossEntropyLoss(1.0)(outputs, batch)) == pytest.approx(float((1 - own).mean()), rel=1e-12)


def test_noise_does_not_move_the_minimum_of_symmetric_losses() -> None:
    """Summed over all labels they are constants: the condition of Ghosh et al. 2017 for symmetric noise."""
    z = torch.randn(5, K, dtype=torch.float64)
    for loss in (
        GeneralizedCrossEntropyLoss(1.0),
        SymmetricCrossEntropyLoss(0.0, 1.0),
        NCEAndMAELoss(),
        NCEAndRCELoss(),
    ):
        sums = {round(sum(value(loss, [row], [k]) for k in range(K)), 9) for row in z.tolist()}
        assert len(sums) == 1, loss


def test_identity_is_cross_entropy_and_the_right_matrix_finds_the_clean_posterior() -> None:
    z, y = torch.randn(9, K, dtype=torch.float64), torch.arange(9) % K
    assert value(ForwardCorrectionLoss(K), z.tolist(), y.tolist()) == pytest.approx(
        value(CrossEntropyLoss(), z.tolist(), y.tolist()), rel=1e-6
    )
    clean = torch.tensor([0.6, 0.3, 0.06, 0.04], dtype=torch.float64)
    noisy = clean @ torch.tensor(T, dtype=torch.float64)
    logits = torch.zeros(K, dtype=torch.float64, requires_grad=True)
    loss, optimizer = (
        ForwardCorrectionLoss(K, T).double(),
        torch.optim.LBFGS([logits], max_iter=300, tolerance_grad=1e-12),
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        head = outputs_of(logits.expand(K, K))
        per_label = torch.stack([loss(head, batch_of(torch.full((K,), k))) for k in range(K)])
        expected = (noisy * per_label).sum()
        expected.backward()
        return expected

    optimizer.step(closure)
    assert torch.allclose(logits.softmax(0).detach(), clean, atol=1e-4)


def test_gradients_at_probability_zero_are_those_of_the_formula() -> None:
    """Saturated samples: cross-entropy's gradient times p^q is 0, and no NaN stands in its place."""
    z = torch.tensor([[-300.0, 0.0, 0.0, 0.0]], requires_grad=True)
    for loss in (
        GeneralizedCrossEntropyLoss(),
        SymmetricCrossEntropyLoss(),
        NCEAndRCELoss(),
        NCEAndMAELoss(),
        ForwardCorrectionLoss(K, T),
    ):
        (grad,) = torch.autograd.grad(loss(outputs_of(z), batch_of(torch.tensor([0]))), z)
        assert torch.isfinite(grad).all(), loss
    (grad,) = torch.autograd.grad(GeneralizedCrossEntropyLoss()(outputs_of(z), batch_of(torch.tensor([0]))), z)
    assert float(grad.abs().max()) < 1e-12


def test_a_given_matrix_is_held_in_the_state() -> None:
    loss, loaded = ForwardCorrectionLoss(K, T), ForwardCorrectionLoss(K)
    loaded.load_state_dict(loss.state_dict())
    assert torch.allclose(loaded.transition, torch.tensor(T), atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GeneralizedCrossEntropyLoss(1.5), r"q must lie in \[0, 1\]"),
        (lambda: SymmetricCrossEntropyLoss(-1.0), "must be finite and not negative"),
        (lambda: SymmetricCrossEntropyLoss(log_zero=0.0), "log_zero must be negative and finite, got 0.0"),
        (lambda: NCEAndRCELoss(log_zero=4.0), "log_zero must be negative and finite, got 4.0"),
        (lambda: NCEAndMAELoss(beta=-1.0), "must be finite and not negative"),
        (lambda: EarlyLearningLoss(0, 3), "num_samples >= 1"),
        (lambda: EarlyLearningLoss(3, 3, momentum=1.0), "momentum"),
        (lambda: EarlyLearningLoss(3, 3, strength=-1.0), "strength"),
        (lambda: EarlyLearningLoss(3, 3, strength=math.nan), "strength must be finite"),
        (lambda: SymmetricCrossEntropyLoss(math.nan), "must be finite"),
        (lambda: NCEAndMAELoss(beta=math.inf), "must be finite"),
        (lambda: BinaryCrossEntropyLoss(3, math.nan), "initial_threshold must be finite, got nan"),
        (lambda: ForwardCorrectionLoss(2, [[0.9, 0.2], [0.0, 1.0]]), "row 0 sums to 1.1"),
        (
            lambda: ForwardCorrectionLoss(2, [[1.0, 0.0], [1.0, 0.0]]),
            r"columns \[1\] of the transition",
        ),
        (lambda: ForwardCorrectionLoss(3, [[0.9, 0.1], [0.0, 1.0]]), r"must have the shape \(3, 3\)"),
        (lambda: ForwardCorrectionLoss(2, [[1.0, 0.0], [1.0]]), "must be square"),
        (lambda: ForwardCorrectionLoss(2, [[1.5, -0.5], [0.0, 1.0]]), r"probabilities in \[0, 1\]"),
    ],
)
def test_bad_arguments(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_the_logits_head_returns_its_input() -> None:
    z = torch.randn(3, K)
    assert torch.equal(LogitsHead(K, K)(z), z)
