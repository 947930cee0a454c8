"""Uniform accuracy against the count at every candidate threshold."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.metrics import classification, uniform_accuracy

K = 3
# Few levels, so that ties between samples and between classes are common.
samples = st.lists(
    st.tuples(st.lists(st.integers(-3, 3), min_size=K, max_size=K), st.integers(0, K - 1)), min_size=1, max_size=12
)


def share(rows: list[tuple[list[int], int]], t: float) -> float:
    right = 0
    for z, y in rows:
        right += all(v > t if k == y else v < t for k, v in enumerate(z))
    return right / len(rows)


@given(samples)
@settings(max_examples=150, deadline=None)
def test_no_threshold_does_better_than_the_returned_one(rows: list[tuple[list[int], int]]) -> None:
    result = uniform_accuracy(torch.tensor([z for z, _ in rows]).float(), torch.tensor([y for _, y in rows]))
    best = max(share(rows, step / 2) for step in range(-8, 9))  # levels are whole: halves are all one needs
    assert result["uniform_accuracy"] == pytest.approx(best)
    if best:
        assert share(rows, result["uniform_threshold"]) == pytest.approx(best)
    else:
        assert "uniform_threshold" not in result


@given(st.integers(0, 10**6), st.floats(-5, 5))
@settings(max_examples=30, deadline=None)
def test_it_moves_with_a_common_shift_and_never_exceeds_the_accuracy(seed: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(40, K, generator=generator, dtype=torch.float64)
    labels = torch.randint(K, (40,), generator=generator)
    result = uniform_accuracy(logits, labels)
    assert result["uniform_accuracy"] <= classification(logits, labels, [1] * K)["accuracy"] + 1e-12
    moved = uniform_accuracy(logits + shift, labels)
    assert moved["uniform_accuracy"] == result["uniform_accuracy"]
    assert moved["uniform_threshold"] == pytest.approx(result["uniform_threshold"] + shift)


def test_samples_on_different_levels_are_correct_but_not_uniformly() -> None:
    logits = torch.eye(K) + 10 * torch.arange(K)[:, None]
    assert classification(logits, torch.arange(K), [1] * K)["accuracy"] == 1
    assert uniform_accuracy(logits, torch.arange(K)) == {
        "uniform_accuracy": pytest.approx(1 / K),
        "uniform_threshold": 0.5,
    }


def test_no_correct_sample_has_no_threshold() -> None:
    assert uniform_accuracy(torch.eye(2), torch.tensor([1, 0])) == {"uniform_accuracy": 0.0}
    assert uniform_accuracy(torch.zeros(2, 2), torch.tensor([1, 0])) == {"uniform_accuracy": 0.0}  # a tie is not right


def test_one_class_has_no_other() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        uniform_accuracy(torch.zeros(2, 1), torch.zeros(2).long())
