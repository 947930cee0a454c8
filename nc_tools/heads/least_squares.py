"""A linear head in closed form: ridge regression on one-hot targets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.class_moments import ClassMoments
from nc_tools.heads.linear import LinearHead


def least_squares_init(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    ridge: float,
    *,
    bias: bool = True,
    target: float = 1.0,
) -> LinearHead:
    """Build a linear head that solves ridge regression on one-hot targets, from class means and covariance.

    Use it as a start for training, without the peak of the loss that random rows cause when classes are added, or as a
    baseline without a learning rate. Without a bias

        W = t diag(pi) M (S_T + mu_G mu_G^T + lambda I)^-1

    minimizes mean_i ||t y_i - W h_i||^2 + lambda ||W||^2. Here y_i is the one-hot label, pi_k = n_k / N the share of
    class k, M (K, D) the class means, mu_G the mean and S_T the covariance of all samples. With a bias, which is not
    penalized, W = t diag(pi) (M - 1 mu_G^T) (S_T + lambda I)^-1 and b = t pi - W mu_G. Source: Harun and Kanan (2025),
    after Han, Papyan and Donoho (2022). Their form has 1 / K in place of diag(pi): the same on balanced data, but no
    solution of the regression on other data. A class without samples gets a row of zeros.

    Args:
        features: (N, D).
        labels: (N,), integers in [0, K).
        num_classes: K, at least 2.
        ridge: lambda > 0, in units of squared features; a hundredth of ``features.square().mean()`` is a start.
        bias: Whether to fit b.
        target: t, the target score of a sample's own class; the others are 0. To start training with cross-entropy, use
            ``default_scale(num_classes)``: the softmax of scores between 0 and 1 is nearly uniform.

    Returns:
        A head on the features' device and of their dtype, at least float32. Solved in float64.

    Raises:
        TypeError: If features are not floating-point or labels not integers.
        ValueError: If shapes do not fit, a label is out of range, a feature is not finite, there is no sample, K < 2,
            or ridge or target is not positive.

    Example:
        >>> features, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
        >>> least_squares_init(features, labels, 2, ridge=0.5, bias=False).weight.tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    for name, value in (("ridge", ridge), ("target", target)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value}")
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"features must have the shape (N, D) with N >= 1, got {tuple(features.shape)}")
    values = at_least_float32(features.detach())
    unused = torch.Generator()  # for the initial weights, which are overwritten
    head = LinearHead(features.shape[1], num_classes, bias=bias, generator=unused).to(values)
    moments = ClassMoments(num_classes, features.shape[1], values.device)
    moments.update(values, labels)
    solve_least_squares(head, moments, ridge, target=target)
    return head


@torch.no_grad()
def solve_least_squares(head: LinearHead, moments: ClassMoments, ridge: float, *, target: float = 1.0) -> None:
    """Set the weights of a linear head to the solution of :func:`least_squares_init`, from moments of the features.

    Solutions for many values of ridge need no further pass over the features.

    Args:
        head: Changed in place; its bias is fitted if it has one.
        moments: Of the training features, with their scatter.
        ridge: lambda > 0.
        target: t, the target score of a sample's own class.

    Example:
        >>> features, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
        >>> head, moments = LinearHead(2, 2, bias=False), ClassMoments(2, 2)
        >>> moments.update(features, labels)
        >>> solve_least_squares(head, moments, ridge=0.5)
        >>> head.weight.tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    with measuring_precision(moments.device):
        share = moments.counts.double() / moments.counts.sum()
        center = share @ moments.means if head.bias is not None else torch.zeros_like(moments.means[0])
        means = moments.means - center
        weighted = share[:, None] * means
        second_moment = moments.within_pooled() + means.T @ weighted
        second_moment.diagonal().add_(ridge)
        weight = target * torch.cholesky_solve(weighted.T, torch.linalg.cholesky(second_moment)).T
        head.weight.copy_(weight)
        if head.bias is not None:
            head.bias.copy_(target * share - weight @ center)
