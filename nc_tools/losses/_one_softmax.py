"""Losses that depend only on p_y, the probability of the label: one softmax gives value and gradient."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nc_tools._support.tracing import traced
from nc_tools.losses._rows import RowReduction, cross_entropy
from nc_tools.losses.logit_loss import LogitLoss


class OneSoftmaxLoss(LogitLoss):
    """The base of losses f(-log p_y) that depend only on p_y, the softmax probability of the label."""

    @abstractmethod
    def formula(self, nll: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss f and its derivative for each negative log-likelihood (N, 1): see :func:`of_nll`."""

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each sample (N,)."""
        return of_nll(logits, labels, self.formula)

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of the batch."""
        return of_nll(logits, labels, self.formula, "mean")


def of_nll(
    logits: Tensor, labels: Tensor, formula: Callable[..., Any], reduction: RowReduction = "none", *, arity: int = 1
) -> Tensor:
    """Return a function f of each sample's negative log-likelihood -log p_y, or the mean of f.

    The gradient is f'(-log p_y) (p - e_y): one softmax gives value and gradient, where autograd would go back through
    every small step of f and through a second softmax.

    With ``arity=2`` f also takes the margin m = z_y - mean_k z_k of the label's logit, which takes one more pass over
    the logits. From both follows sum_k -log p_k = K (nll + m). The gradient is f_nll (p - e_y) + f_m (e_y - 1 / K),
    with f_nll and f_m the derivatives of f.

    Args:
        logits: (N, K), float32 or float64.
        labels: (N,), int64. Not checked here.
        formula: Function from nll (N, 1), at least 0, to f and f'. With ``arity=2``: from nll and margin (N, 1) to f,
            f_nll and f_m. It consists of torch operations, none of them in place.
        reduction: "none" or "mean".
        arity: Number of arguments of the formula, 1 or 2.

    Returns:
        (N,), or a scalar.

    Example:
        >>> z, y = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> of_nll(torch.zeros(1, 4), torch.tensor([2]), lambda nll: (nll.square(), 2 * nll)).sqrt()  # log 4
        tensor([1.3863])
        >>> of_nll(z, y, lambda nll, m: (m, torch.zeros_like(nll), torch.ones_like(m)), arity=2)
        tensor([1.])
    """
    if traced():
        return _stepwise(logits, labels, formula, reduction, arity)
    value: Tensor = _OneSoftmax.apply(logits, labels, formula, reduction, arity)
    return value


def _stepwise(z: Tensor, labels: Tensor, formula: Callable[..., Any], reduction: RowReduction, arity: int) -> Tensor:
    """Return what :func:`of_nll` does, through autograd."""
    nll = cross_entropy(z, labels, "none").unsqueeze(1)
    if arity == 2:
        value: Tensor = formula(nll, z.gather(1, labels.unsqueeze(1)) - z.mean(1, keepdim=True))[0]
    else:
        value = formula(nll)[0]
    return value.mean() if reduction == "mean" else value.squeeze(1)


class _OneSoftmax(torch.autograd.Function):
    """The loss of :func:`of_nll`, with its gradient in closed form."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, labels: Tensor, formula: Callable[..., Any], reduction: RowReduction, arity: int
    ) -> Tensor:
        p, own = z.softmax(1), labels.unsqueeze(1)
        own_logit = z.gather(1, own)
        # -log p_y from the largest probability and not from p_y, which may underflow: the largest is at least 1 / K.
        nll = z.amax(1, keepdim=True).sub_(own_logit).sub_(p.amax(1, keepdim=True).log_())
        value: Tensor
        if arity == 2:
            value, by_nll, by_margin = formula(nll, own_logit.sub_(z.mean(1, keepdim=True)))
        else:
            value, by_nll = formula(nll)
            by_margin = None
        ctx.save_for_backward(z, labels, p, by_nll, by_margin)
        ctx.options = formula, reduction, arity
        return value.mean() if reduction == "mean" else value.squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, labels, p, by_nll, by_margin = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives: what is saved does not depend on z
            value = _stepwise(z, labels, *ctx.options)
            return *torch.autograd.grad(value, z, grad, create_graph=True), None, None, None, None
        share = grad / len(p) if ctx.options[1] == "mean" else grad.unsqueeze(1)
        slope = by_nll * share
        back = p * slope
        at_own = slope.neg_()
        if by_margin is not None:
            rise = by_margin * share
            back.sub_(rise / z.shape[1])
            at_own += rise
        return back.scatter_add_(1, labels.unsqueeze(1), at_own), None, None, None, None
