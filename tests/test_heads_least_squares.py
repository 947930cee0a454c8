"""A head that starts at the least-squares solution."""

import math

import numpy as np
import pytest
import torch
from support.unequal_classes import D, K, N, sample, seeded
from torch import Tensor, nn

from nc_tools.heads import (
    LinearHead,
    default_scale,
    least_squares_init,
)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [0.01, 1.0, 30.0])
def test_least_squares_is_ridge_regression_on_one_hot_targets(bias: bool, ridge: float) -> None:
    """scikit-learn's Ridge, with its (unpenalized) intercept or without; it adds errors up where we average them."""
    from sklearn.linear_model import Ridge

    features, labels = sample()
    head = least_squares_init(features.double(), labels, K, ridge, bias=bias, target=3.0)
    targets = 3.0 * torch.nn.functional.one_hot(labels, K).double()
    reference = Ridge(alpha=N * ridge, fit_intercept=bias, solver="svd").fit(features.double().numpy(), targets.numpy())
    assert np.allclose(head.weight.detach().numpy(), reference.coef_, atol=1e-9)
    if bias:
        assert np.allclose(head.bias.detach().numpy(), reference.intercept_, atol=1e-9)  # type: ignore[union-attr]
    else:
        assert head.bias is None


def test_on_balanced_data_it_is_the_published_form_and_on_others_it_is_not() -> None:
    def published(h: Tensor, y: Tensor, ridge: float) -> Tensor:
        means = torch.stack([h[y == k].mean(0) for k in range(K)])
        center = h.mean(0)
        total = (h - center).T @ (h - center) / len(h)
        inverse = torch.linalg.inv(total + torch.outer(center, center) + ridge * torch.eye(D, dtype=h.dtype))
        return means @ inverse / K

    features, labels = sample()
    features = features.double()
    balanced = torch.cat([(labels == k).nonzero().flatten()[:5] for k in range(K)])
    h, y = features[balanced], labels[balanced]
    assert torch.allclose(least_squares_init(h, y, K, 0.1, bias=False).weight, published(h, y, 0.1), atol=1e-10)
    assert not torch.allclose(
        least_squares_init(features, labels, K, 0.1, bias=False).weight, published(features, labels, 0.1), atol=0.05
    )


def test_an_absent_class_gets_zeros_and_float32_far_from_the_origin_is_as_good() -> None:
    features, labels = sample()
    head = least_squares_init(features, labels, K + 2, 0.1)
    assert not head.weight[K:].any()
    assert not head.bias[K:].any()  # type: ignore[index]
    far = least_squares_init(features + 1000, labels, K, 0.1)
    exact = least_squares_init((features + 1000).double(), labels, K, 0.1)
    assert torch.allclose(far.weight.double(), exact.weight, atol=1e-3)
    assert far.weight.dtype == torch.float32


def test_the_start_has_no_spike_of_the_loss() -> None:
    features, labels = sample(spread=0.3)
    loss = nn.functional.cross_entropy
    started = loss(least_squares_init(features, labels, K, 0.01, target=default_scale(K))(features), labels)
    drawn = loss(LinearHead(D, K, generator=seeded(0))(features), labels)
    assert started.item() < 0.1 < drawn.item()


@pytest.mark.parametrize(("ridge", "target"), [(0.0, 1.0), (-1.0, 1.0), (math.nan, 1.0), (0.1, 0.0)])
def test_an_invalid_ridge_or_target_raises(ridge: float, target: float) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        least_squares_init(*sample(), K, ridge, target=target)
    with pytest.raises(ValueError, match=r"\(N, D\) with N >= 1, got \(0, 3\)"):
        least_squares_init(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), K, 1.0)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\)"):
        least_squares_init(*sample(), 2, 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_least_squares_works_where_the_features_are() -> None:
    features, labels = sample()
    solved = least_squares_init(features.cuda(), labels.cuda(), K, 0.1)
    assert torch.allclose(solved.weight.cpu(), least_squares_init(features, labels, K, 0.1).weight, atol=1e-4)
