"""What is no tensor, no module, no whole number or not finite is told in one sentence."""

import math

import pytest
import torch

import nc_tools
from nc_tools.metrics import expected_calibration_error, minority_collapse, nearest_class_mean


def test_scores_that_are_no_tensor():
    with pytest.raises(TypeError, match="logits must be a tensor, got str"):
        expected_calibration_error("a", torch.arange(2))
    with pytest.raises(TypeError, match="labels must be a tensor, got list"):
        expected_calibration_error(torch.eye(2), [0, 1])


def test_shots_that_are_no_whole_number():
    x, y = torch.eye(4), torch.arange(4) % 2
    with pytest.raises(ValueError, match=r"whole numbers, at least 1, got 2\.5 and 3"):
        nearest_class_mean(x, y, x, y, 2.5, 3, torch.Generator())


def test_rows_that_are_not_finite():
    with pytest.raises(ValueError, match="weight must be finite, but 3 of 3 rows"):
        minority_collapse(torch.full((3, 2), math.nan), [9, 5, 2])


def test_a_model_that_is_none():
    with pytest.raises(TypeError, match="must be a torch module, got 'resnet18': build it first"):
        nc_tools.measure("resnet18", [])
