"""Input that cannot be measured raises an error that says why, and does not crash the process."""

import math
from collections.abc import Callable

import pytest
import torch

import nc_tools
from nc_tools._support.class_sums import class_sums
from nc_tools.metrics import (
    classification,
    counted_transition,
    expected_calibration_error,
    memorization,
    minority_collapse,
    nearest_class_mean,
    neural_collapse,
    per_class,
    precision_at,
    rank_suspects,
)

X, LOGITS, Y = torch.randn(12, 5), torch.randn(12, 3), torch.arange(12) % 3
BROKEN = X.clone()
BROKEN[3, 2], BROKEN[4, 0] = math.nan, math.inf
OTHER = (Y + (torch.arange(12) < 3)) % 3

WRONG: dict[str, tuple[type[Exception], Callable[[], object], str]] = {
    # Without a class the sums would read out of bounds, which crashes the process.
    "no class": (ValueError, lambda: class_sums(X, Y, 0), "num_classes must be at least 1, got 0"),
    "no class of collapse": (
        ValueError,
        lambda: neural_collapse(X, Y, num_classes=0),
        "num_classes must be at least 1",
    ),
    "fewer than none": (ValueError, lambda: neural_collapse(X, Y, num_classes=-1), "got -1"),
    "only -1": (ValueError, lambda: neural_collapse(X, Y * 0 - 1), "class indices from 0 on"),
    "bins": (ValueError, lambda: expected_calibration_error(LOGITS, Y, num_bins=0), "at least 1, got 0"),
    "half a bin": (ValueError, lambda: expected_calibration_error(LOGITS, Y, num_bins=2.5), "whole number"),  # type: ignore[arg-type]
    "counts": (ValueError, lambda: classification(LOGITS, Y, [-1, 2, 3]), "numbers of training samples from 0 up"),
    "no counts": (ValueError, lambda: per_class(LOGITS, Y, torch.tensor([math.nan, 2, 3])), "from 0 up, got .nan"),
    "suspects": (ValueError, lambda: rank_suspects(BROKEN, LOGITS, Y), "2 of 12 rows hold NaN or inf"),
    "memory": (
        ValueError,
        lambda: memorization(BROKEN, LOGITS, given_labels=Y, true_labels=OTHER),
        "2 of 12 rows hold NaN",
    ),
    "integer features": (TypeError, lambda: rank_suspects(X.long(), LOGITS, Y), "features must be floating-point"),
    "k": (ValueError, lambda: precision_at(torch.arange(12), Y > 1, -1), "must not be negative, got -1"),
    "transition": (ValueError, lambda: counted_transition(Y, Y + 1, 3), r"lie in \[0, 3\), but 4 of them do not"),
    "transition of -1": (ValueError, lambda: counted_transition(Y - 1, Y, 3), "but 4 of them do not"),
    "transition of none": (ValueError, lambda: counted_transition(Y, Y, 0), "num_classes >= 1, got 0"),
    "transition of shares": (TypeError, lambda: counted_transition(Y, Y.float(), 3), "must be class indices"),
    "transition of others": (TypeError, lambda: counted_transition(Y, Y[:5], 3), "of the same samples"),
}


@pytest.mark.parametrize(("error", "measure", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_rejected(error: type[Exception], measure: Callable[[], object], message: str) -> None:
    with pytest.raises(error, match=message):
        measure()


def test_an_absent_training_class_is_allowed() -> None:
    assert classification(LOGITS, Y, [0, 2, 3])["accuracy"] >= 0


def test_scores_that_are_not_tensors():
    with pytest.raises(TypeError, match="logits must be a tensor, got str"):
        expected_calibration_error("a", torch.arange(2))
    with pytest.raises(TypeError, match="labels must be a tensor, got list"):
        expected_calibration_error(torch.eye(2), [0, 1])


def test_shots_that_are_not_whole_numbers():
    x, y = torch.eye(4), torch.arange(4) % 2
    with pytest.raises(ValueError, match=r"whole numbers, at least 1, got 2\.5 and 3"):
        nearest_class_mean(x, y, x, y, 2.5, 3, torch.Generator())


def test_rows_that_are_not_finite():
    with pytest.raises(ValueError, match="weight must be finite, but 3 of 3 rows"):
        minority_collapse(torch.full((3, 2), math.nan), [9, 5, 2])


def test_a_model_that_is_not_a_module():
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got .resnet18"):
        nc_tools.measure("resnet18", [])
