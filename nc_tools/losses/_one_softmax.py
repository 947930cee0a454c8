"""Losses of each sample's -log p_y: one softmax gives the value and the gradient."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nc_tools._support.tracing import traced
from nc_tools.losses.logit_loss import LogitLoss

Reduction = Literal["none", "mean"]
# nll (N, 1) to the value and its slope, both (N, 1)
Formula = Callable[[Tensor], tuple[Tensor, Tensor]]
# nll and margin (N, 1) to the value, its slope in the nll and its slope in the margin
MarginFormula = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


class OneSoftmaxLoss(LogitLoss):
    """The base of losses f(-log p_y), p the softmax of the logits."""

    @abstractmethod
    def formula(self, nll: Tensor) -> tuple[Tensor, Tensor]:
        """Return f and f' at the negative log-likelihoods (N, 1): see :func:`of_nll`."""

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each sample (N,)."""
        return of_nll(logits, labels, self.formula)

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the batch."""
        return of_nll(logits, labels, self.formula, "mean")


def of_nll(logits: Tensor, labels: Tensor, formula: Formula, reduction: Reduction = "none") -> Tensor:
    """Return f of each sample's negative log-likelihood -log p_y, p = softmax(z), or the mean of f.

    The gradient is f'(-log p_y) (p - e_y): one softmax gives value and gradient, where autograd would go back through
    every small step of f and through a second softmax.

    Args:
        logits: (N, K), float32 or float64.
        labels: (N,), int64. Not checked here.
        formula: From nll (N, 1), at least 0, to f and f'. Made of torch operations, none of them in place.
        reduction: "none" or "mean".

    Returns:
        (N,), or a scalar.

    Example:
        >>> of_nll(torch.zeros(1, 4), torch.tensor([2]), lambda nll: (nll.square(), 2 * nll)).sqrt()  # log 4
        tensor([1.3863])
    """
    return _apply(logits, labels, formula, 1, reduction)


def of_nll_and_margin(logits: Tensor, labels: Tensor, formula: MarginFormula, reduction: Reduction = "none") -> Tensor:
    """Return f(nll, m) of each sample's nll = -log p_y and margin m = z_y - mean_k z_k, or the mean of f.

    The two give sum_k -log p_k = K (nll + m). The gradient is f_nll (p - e_y) + f_m (e_y - 1 / K).

    Args:
        logits: (N, K), float32 or float64.
        labels: (N,), int64. Not checked here.
        formula: From nll and margin (N, 1) to f, f_nll and f_m. Made of torch operations, none of them in place.
        reduction: "none" or "mean".

    Returns:
        (N,), or a scalar.

    Example:
        >>> z, y = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> of_nll_and_margin(z, y, lambda nll, m: (m, torch.zeros_like(nll), torch.ones_like(m)))
        tensor([1.])
    """
    return _apply(logits, labels, formula, 2, reduction)


# The arity of a formula says whether it takes nll and margin, or nll alone.
def _apply(
    z: Tensor, labels: Tensor, formula: Callable[..., Any], arity: Literal[1, 2], reduction: Reduction
) -> Tensor:
    if traced():
        return _stepwise(z, labels, formula, arity, reduction)
    value: Tensor = _OneSoftmax.apply(z, labels, formula, arity, reduction)
    return value


def _stepwise(
    z: Tensor, labels: Tensor, formula: Callable[..., Any], arity: Literal[1, 2], reduction: Reduction
) -> Tensor:
    """Return the same through autograd."""
    nll = nn.functional.cross_entropy(z, labels, reduction="none").unsqueeze(1)
    if arity == 2:
        value: Tensor = formula(nll, z.gather(1, labels.unsqueeze(1)) - z.mean(1, keepdim=True))[0]
    else:
        value = formula(nll)[0]
    return value.mean() if reduction == "mean" else value.squeeze(1)


class _OneSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, labels: Tensor, formula: Callable[..., Any], arity: Literal[1, 2], reduction: Reduction
    ) -> Tensor:
        p, own = z.softmax(1), labels.unsqueeze(1)
        own_logit = z.gather(1, own)
        # -log p_y by way of the largest probability, which is at least 1 / K and so never underflows.
        nll = z.amax(1, keepdim=True).sub_(own_logit).sub_(p.amax(1, keepdim=True).log_())
        value: Tensor
        if arity == 2:  # one more pass over the logits
            value, by_nll, by_margin = formula(nll, own_logit.sub_(z.mean(1, keepdim=True)))
        else:
            value, by_nll = formula(nll)
            by_margin = None
        ctx.save_for_backward(z, labels, p, by_nll, by_margin)
        ctx.options = formula, arity, reduction
        return value.mean() if reduction == "mean" else value.squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, labels, p, by_nll, by_margin = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives: what is saved does not depend on z
            value = _stepwise(z, labels, *ctx.options)
            return *torch.autograd.grad(value, z, grad, create_graph=True), None, None, None, None
        share = grad / len(p) if ctx.options[-1] == "mean" else grad.unsqueeze(1)
        slope = by_nll * share
        back = p * slope
        at_own = slope.neg_()
        if by_margin is not None:
            rise = by_margin * share
            back.sub_(rise / z.shape[1])
            at_own += rise
        return back.scatter_add_(1, labels.unsqueeze(1), at_own), None, None, None, None
