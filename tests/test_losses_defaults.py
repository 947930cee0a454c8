"""Losses and their functions have the same defaults; what is no state is not saved; labels are checked."""

import inspect
import re

import pytest
import torch

from nc_tools import losses
from nc_tools.losses import ClassBalancedLoss, CrossEntropyLoss, DeferredReweightingLoss

# Functions that compute a part of a loss, and the class that computes with it.
PARTS = {
    "adjust_logits": "LogitAdjustedLoss",
    "class_attraction": "SpreadLoss",
    "class_balanced_weights": "ClassBalancedLoss",
    "coding_rate_gain": "CodingRateLoss",
    "effective_number": "DeferredReweightingLoss",
    "ldam_margins": "LDAMLoss",
    "reverse_cross_entropy": "SymmetricCrossEntropyLoss",
}


def functions_and_classes():
    """Yield each public function and the class that its docstring refers to, or that it is a part of."""
    for name, cls in PARTS.items():
        yield getattr(losses, name), getattr(losses, cls)
    for name in losses.__all__:
        function = getattr(losses, name)
        refers = inspect.isfunction(function) and re.search(r"See :class:`(\w+)`", function.__doc__ or "")
        if refers and hasattr(losses, refers[1]):
            yield function, getattr(losses, refers[1])


def test_functions_have_the_defaults_of_their_classes():
    compared = []
    for function, cls in functions_and_classes():
        ours, theirs = inspect.signature(function).parameters, inspect.signature(cls).parameters
        for name in ours.keys() & theirs.keys():
            defaults = ours[name].default, theirs[name].default
            if inspect.Parameter.empty not in defaults:
                assert defaults[0] == defaults[1], (function.__name__, name)
                compared.append(name)
    assert len(compared) >= 26


@pytest.mark.parametrize("loss", [ClassBalancedLoss([9, 1]), DeferredReweightingLoss([9, 1], start=0.5)])
def test_weights_that_follow_from_the_class_counts_are_not_saved(loss):
    assert not any("weight" in name or "late" in name for name in loss.state_dict())


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_just_outside_the_classes_is_refused(wrong):
    with pytest.raises(ValueError, match=str(wrong)):
        CrossEntropyLoss()(torch.zeros(2, 3), torch.tensor([0, wrong]))
