"""Unit rows and products with them: values, derivatives, rows of zeros."""

import torch

from nc_tools.heads import (
    normalize,
)
from nc_tools.heads.normalize import dot_normalized


def test_normalize_has_a_bounded_gradient_at_zero() -> None:
    x = torch.zeros(3, 4, requires_grad=True)
    normalize(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert float(x.grad.abs().max()) <= 1.0


def test_normalize_has_first_and_second_derivatives() -> None:
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda v: normalize(v) ** 3, x)


def test_product_with_unit_rows_and_its_first_and_second_derivatives() -> None:
    x, other = (torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.allclose(dot_normalized(x, other), (normalize(x) * other).sum(-1), atol=1e-14)
    assert torch.autograd.gradcheck(dot_normalized, (x, other))
    assert torch.autograd.gradgradcheck(dot_normalized, (x, other))


def test_product_with_a_zero_row_is_zero_with_a_bounded_gradient() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    dot_normalized(x, torch.ones(2, 3)).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [[1.0] * 3] * 2
