"""Neural collapse at the limits: rounding, half precision, undefined quantities, wrong input, a GPU."""

from __future__ import annotations

import math

import pytest
import torch
from support.collapse_samples import draw_balanced, draw_classes_with_head

from nc_tools.metrics import neural_collapse
from nc_tools.metrics.collapse.mean_geometry import whitened_directions


def test_a_collapsed_set_keeps_its_digits_in_float32():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(10).repeat(50)
    x = (torch.randn(10, 64, generator=generator)[y] + 1e-3 * torch.randn(500, 64, generator=generator)) + 5
    values, exact = neural_collapse(x, y), neural_collapse(x.double(), y)
    assert exact["nc1_trace"] < 1e-5
    assert values == pytest.approx(exact, rel=1e-4)


def test_a_direction_of_rounding_error_is_cut():
    # Three classes whose means lie on a line but for 1e-9: an uncut pseudo-inverse divides by 1e-18.
    y = torch.arange(3).repeat(20)
    line = torch.tensor([[-1.0, 0.0], [0.0, 1e-9], [1.0, 0.0]], dtype=torch.float64)
    noise = 0.1 * torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = line[y] + torch.cat([noise, -noise])
    assert neural_collapse(x, y)["nc1_pinv"] < 0.1


@pytest.mark.parametrize(("k", "d"), [(5, 9), (9, 4), (5, 5), (2, 1)])
def test_whitened_directions_are_the_factor_of_the_pseudo_inverse(k, d):
    means = torch.randn(k, d, dtype=torch.float64, generator=torch.Generator().manual_seed(k * d))
    centered = means - means.mean(0)
    columns, singular = whitened_directions(centered, torch.tensor(0.0, dtype=torch.float64))
    assert columns.shape == (d, min(k - 1, d))
    torch.testing.assert_close(columns @ columns.T, torch.linalg.pinv(centered.T @ centered, rtol=1e-10))
    torch.testing.assert_close(singular.flip(0), torch.linalg.svdvals(centered)[: len(singular)])


def test_means_on_a_line_have_one_direction_and_no_nan():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        line = torch.randn(1, 9, generator=generator, dtype=torch.float64)
        means = torch.randn(6, 1, generator=generator, dtype=torch.float64) @ line
        columns, singular = whitened_directions(means - means.mean(0), torch.tensor(0.0, dtype=torch.float64))
        assert bool(columns.isfinite().all())
        assert bool(singular.isfinite().all())
        assert int((singular > 0).sum()) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    x, y, w, b = draw_classes_with_head(5, 100, 5, 4)
    values = neural_collapse(x.to(dtype), y, w.to(dtype), b.to(dtype))
    assert values == pytest.approx(
        neural_collapse(*(t.to(dtype).float() if t.is_floating_point() else t for t in (x, y, w, b)))
    )


def test_quantities_that_are_not_defined_have_no_key():
    one_each = neural_collapse(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.arange(4))
    assert set(one_each) == {"nc2_equinorm", "nc2_equiangular", "nc2_gram"}
    constant = neural_collapse(torch.ones(6, 3), torch.arange(3).repeat(2), torch.eye(3))
    assert set(constant) == {"nc0", "nc4_disagreement"}
    nearly = neural_collapse(torch.full((3000, 7), 0.3), torch.arange(3).repeat(1000))
    assert nearly == {}
    zero_head = neural_collapse(*draw_balanced(), torch.zeros(4, 6))
    assert "nc3_distance" not in zero_head
    assert zero_head["nc0"] == 0.0


def test_a_class_of_one_sample_counts_with_no_spread():
    x = torch.tensor([[0.0], [2.0], [5.0]])
    values = neural_collapse(x, torch.tensor([0, 0, 1]))
    assert values["nc1_trace"] == pytest.approx((1.0 + 0.0) / 2 / 4)


def test_gradients_and_inputs_are_left_alone():
    x, y, w, _ = draw_classes_with_head(6, 40, 4, 3)
    x.requires_grad_()
    before = x.detach().clone()
    neural_collapse(x, y, w.requires_grad_())
    assert torch.equal(x.detach(), before)
    assert x.grad is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(20, dtype=torch.long)}, "at least 2 classes, got 1"),
        ({"labels": torch.arange(20) - 1}, "but 1 of them"),
        ({"labels": torch.arange(19)}, r"\(20,\)"),
        ({"features": torch.full((20, 4), math.nan)}, "20 of 20 samples hold NaN"),
        ({"features": torch.zeros(20, 4, 1)}, r"\(N, D\)"),
        ({"weight": torch.full((5, 4), math.inf)}, "weight must be finite, but 5 of 5 rows"),
        ({"logits": torch.full((20, 5), math.nan)}, "logits must be finite, but 20 of 20 rows"),
        ({"weight": torch.zeros(5, 7)}, "the features after the head's projection, which its weight multiplies"),
        ({"weight": torch.zeros(5, 4), "bias": torch.zeros(4)}, "one number for each"),
        ({"bias": torch.zeros(5)}, "bias needs a weight"),
        ({"weight": torch.zeros(5, 4), "num_classes": 6}, "num_classes 6, weight 5"),
        ({"logits": torch.zeros(3, 5)}, r"\(20, K\)"),
        ({"weight": torch.zeros(3, 4)}, r"\[0, 3\), but 8"),
    ],
)
def test_wrong_input_is_rejected(change, message):
    good = {"features": torch.randn(20, 4), "labels": torch.arange(20) % 5}
    with pytest.raises(ValueError, match=message):
        neural_collapse(**(good | change))


def test_non_tensors_are_rejected():
    for wrong in ({"features": [[1.0, 2.0]]}, {"labels": [0, 1]}):
        good = {"features": torch.randn(2, 2), "labels": torch.arange(2)}
        with pytest.raises(TypeError, match=r"must be a tensor, got list. .*torch\.as_tensor"):
            neural_collapse(**(good | wrong))


def test_bad_types():
    with pytest.raises(TypeError, match="integer class indices"):
        neural_collapse(torch.randn(4, 2), torch.zeros(4))
    with pytest.raises(TypeError, match="floating-point"):
        neural_collapse(torch.ones(4, 2, dtype=torch.long), torch.arange(4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_on_a_gpu():
    x, y, w, b = draw_classes_with_head(7, 5000, 64, 12)
    there = neural_collapse(x.cuda(), y.cuda(), w.cuda(), b.cuda())
    assert there == pytest.approx(neural_collapse(x, y, w, b), rel=1e-4, abs=1e-3)
