"""What nothing can be measured of: one sentence, and no process lost."""

import math
from collections.abc import Callable

import pytest
import torch

from nc_tools import expected_calibration_error, neural_collapse
from nc_tools._support.class_sums import class_sums
from nc_tools.metrics import classification, counted_transition, memorization, per_class, precision_at, rank_suspects

X, LOGITS, Y = torch.randn(12, 5), torch.randn(12, 3), torch.arange(12) % 3
BROKEN = X.clone()
BROKEN[3, 2], BROKEN[4, 0] = math.nan, math.inf
OTHER = (Y + (torch.arange(12) < 3)) % 3

WRONG: dict[str, tuple[type[Exception], Callable[[], object], str]] = {
    # Without a class the sums read out of bounds: the process was lost, not only the call.
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
    "counts": (ValueError, lambda: classification(LOGITS, Y, [-1, 2, 3]), "numbers of samples, none negative"),
    "no counts": (ValueError, lambda: per_class(LOGITS, Y, torch.tensor([math.nan, 2, 3])), "none negative, got .nan"),
    "suspects": (ValueError, lambda: rank_suspects(BROKEN, LOGITS, Y), "2 of 12 rows hold NaN or inf"),
    "memory": (ValueError, lambda: memorization(BROKEN, LOGITS, given=Y, true=OTHER), "2 of 12 rows hold NaN"),
    "whole features": (TypeError, lambda: rank_suspects(X.long(), LOGITS, Y), "features must be floating-point"),
    "k": (ValueError, lambda: precision_at(torch.arange(12), Y > 1, -1), "must not be negative, got -1"),
    "transition": (ValueError, lambda: counted_transition(Y, Y + 1, 3), r"lie in \[0, 3\), but 4 of them do not"),
    "transition of -1": (ValueError, lambda: counted_transition(Y - 1, Y, 3), "but 4 of them do not"),
    "transition of none": (ValueError, lambda: counted_transition(Y, Y, 0), "num_classes >= 1, got 0"),
    "transition of shares": (TypeError, lambda: counted_transition(Y, Y.float(), 3), "must be class indices"),
    "transition of others": (TypeError, lambda: counted_transition(Y, Y[:5], 3), "of the same samples"),
}


@pytest.mark.parametrize(("error", "measure", "told"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_measured(error: type[Exception], measure: Callable[[], object], told: str) -> None:
    with pytest.raises(error, match=told):
        measure()


def test_an_absent_training_class_is_no_bad_count() -> None:
    assert classification(LOGITS, Y, [0, 2, 3])["accuracy"] >= 0
