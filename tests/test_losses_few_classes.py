"""Cross-entropy of few classes, which is computed class by class on a CPU, against PyTorch's."""

import pytest
import torch
from torch.nn import functional

from nc_tools.losses import CrossEntropyLoss, affine_cross_entropy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [1, 2, 10, 15, 16])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_values_and_gradients_are_those_of_pytorch(classes, reduction, dtype):
    generator = torch.Generator().manual_seed(classes)
    # The last rows are saturated: exp() of a logit would overflow, and exp() of the others is 0.
    z = torch.randn(40, classes, generator=generator, dtype=dtype) * torch.linspace(0.1, 300, 40, dtype=dtype)[:, None]
    y = torch.randint(classes, (40,), generator=generator)
    weights = torch.rand(40, generator=generator, dtype=dtype) if reduction == "none" else 1

    def value_and_gradient(loss):
        logits = z.clone().requires_grad_()
        value = loss(logits)
        (gradient,) = torch.autograd.grad((value * weights).sum(), logits)
        return value, gradient

    expected = value_and_gradient(lambda logits: functional.cross_entropy(logits, y, reduction=reduction))
    for own in (
        value_and_gradient(lambda logits: affine_cross_entropy(logits, y, reduction=reduction)),
        value_and_gradient(lambda logits: CrossEntropyLoss()(logits, y, reduction=reduction)),
    ):
        torch.testing.assert_close(own, expected)


def test_no_sample_has_the_mean_of_pytorch():
    assert affine_cross_entropy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), reduction="mean").isnan()
    assert affine_cross_entropy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), reduction="sum") == 0
