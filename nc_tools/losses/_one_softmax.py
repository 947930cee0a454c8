"""Losses that see a sample through two numbers: value and gradient from one softmax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nc_tools._support.tracing import traced
from nc_tools.losses.per_sample import checked_logits

Reduction = Literal["none", "mean"]
# surprise (N, 1) to value and slope, both (N, 1)
SurpriseFormula = Callable[[Tensor], tuple[Tensor, Tensor]]
# surprise and lead (N, 1) to value, slope in surprise and slope in lead
OfLead = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def of_surprise(logits: Tensor, labels: Tensor, formula: SurpriseFormula, reduction: Reduction = "none") -> Tensor:
    """Return f(s) of each sample's surprise s = -log p_y, p = softmax(z), or the mean of it.

    The gradient is f'(s) (p - e_y): one softmax serves value and gradient, where autograd would walk back through
    every small step of f and through a second softmax.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        formula: Surprise (N, 1), at least 0, to f and f'; of torch operations, none of them in place.
        reduction: "none" or "mean".

    Returns:
        (N,), or a scalar.

    Raises:
        TypeError: If the labels are not class indices.
        ValueError: If the shapes do not fit.

    Example:
        >>> of_surprise(torch.zeros(1, 4), torch.tensor([2]), lambda s: (s.square(), 2 * s)).sqrt()  # log 4
        tensor([1.3863])
    """
    return _apply(logits, labels, _Formula(lambda s, _: (*formula(s), None), leads=False), reduction)


def of_surprise_and_lead(logits: Tensor, labels: Tensor, formula: OfLead, reduction: Reduction = "none") -> Tensor:
    """Return f(s, m) of surprise and lead, m = z_y - mean_k z_k, or the mean of it.

    With both, -sum_k log p_k = K (s + m) is known too. The gradient is f_s (p - e_y) + f_m (e_y - 1 / K).

    Args:
        logits: (N, K).
        labels: (N,), int64.
        formula: Surprise and lead (N, 1) to f, f_s and f_m; of torch operations, none of them in place.
        reduction: "none" or "mean".

    Returns:
        (N,), or a scalar.

    Raises:
        TypeError: If the labels are not class indices.
        ValueError: If the shapes do not fit.

    Example:
        >>> z, y = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> of_surprise_and_lead(z, y, lambda s, m: (m, torch.zeros_like(s), torch.ones_like(m)))
        tensor([1.])
    """
    return _apply(logits, labels, _Formula(formula, leads=True), reduction)


@dataclass(frozen=True)
class _Formula:
    of: Callable[..., tuple[Tensor, Tensor, Tensor | None]]
    leads: bool  # the lead is a pass over the logits: only where it is asked for


def _apply(logits: Tensor, labels: Tensor, formula: _Formula, reduction: Reduction) -> Tensor:
    z = checked_logits(logits, labels)
    if traced():
        return _stepwise(z, labels, formula, reduction)
    found: Tensor = _OneSoftmax.apply(z, labels, formula, reduction)
    return found


def _stepwise(z: Tensor, labels: Tensor, formula: _Formula, reduction: Reduction) -> Tensor:
    """Return the same through autograd."""
    surprise = nn.functional.cross_entropy(z, labels, reduction="none").unsqueeze(1)
    lead = z.gather(1, labels.unsqueeze(1)) - z.mean(1, keepdim=True) if formula.leads else None
    value = formula.of(surprise, lead)[0]
    return value.mean() if reduction == "mean" else value.squeeze(1)


class _OneSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, labels: Tensor, formula: _Formula, reduction: Reduction) -> Tensor:
        p, own = z.softmax(1), labels.unsqueeze(1)
        at = z.gather(1, own)
        # -log p_y by way of the largest probability, which is at least 1 / K and so never underflows.
        surprise = z.amax(1, keepdim=True).sub_(at).sub_(p.amax(1, keepdim=True).log_())
        lead = at.sub_(z.mean(1, keepdim=True)) if formula.leads else None
        value, by_surprise, by_lead = formula.of(surprise, lead)
        ctx.save_for_backward(z, labels, p, by_surprise, by_lead)
        ctx.formula, ctx.reduction = formula, reduction
        return value.mean() if reduction == "mean" else value.squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, labels, p, by_surprise, by_lead = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: what is saved does not depend on z
            value = _stepwise(z, labels, ctx.formula, ctx.reduction)
            return *torch.autograd.grad(value, z, grad, create_graph=True), None, None, None
        share = grad / len(p) if ctx.reduction == "mean" else grad.unsqueeze(1)
        slope = by_surprise * share
        back = p * slope
        at_own = slope.neg_()
        if by_lead is not None:
            rise = by_lead * share
            back.sub_(rise / z.shape[1])
            at_own += rise
        return back.scatter_add_(1, labels.unsqueeze(1), at_own), None, None, None
