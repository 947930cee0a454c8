"""Forward correction for label noise with a known or estimated transition matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nc_tools._support.tracing import traced
from nc_tools.losses.loss_term import LossTerm
from nc_tools.losses.per_sample import checked_logits
from nc_tools.metrics.label_noise.transition import checked_transition
from nc_tools.records import Batch, Outputs


def forward_corrected(logits: Tensor, labels: Tensor, log_columns: Tensor) -> Tensor:
    """-log sum_i T_iy p_i per sample. See :class:`ForwardCorrectionLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        log_columns: log T transposed (K, K): row y holds log T_iy over i; minus infinity where T is 0.

    Returns:
        (N,).
    """
    z, columns = checked_logits(logits, labels), log_columns.index_select(0, labels)
    if traced():
        return _stepwise(z, columns)
    found: Tensor = _TwoSoftmaxes.apply(z, columns)
    return found


def _stepwise(z: Tensor, columns: Tensor) -> Tensor:
    return z.logsumexp(1) - (z + columns).logsumexp(1)


class _TwoSoftmaxes(torch.autograd.Function):
    """lse(z) - lse(z + c), whose gradient is softmax(z) - softmax(z + c): the fast part of a softmax, twice."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, columns: Tensor) -> Tensor:
        mixed = z + columns
        p, r = z.softmax(1), mixed.softmax(1)
        ctx.save_for_backward(z, columns, p, r)
        # A log-sum-exp is the largest score less the log of the largest probability, which never underflows.
        return z.amax(1).sub_(mixed.amax(1)).add_(r.amax(1).log_()).sub_(p.amax(1).log_())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        z, columns, p, r = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: what is saved does not depend on z
            return *torch.autograd.grad(_stepwise(z, columns), z, grad, create_graph=True), None
        return (p - r) * grad.unsqueeze(1), None


class ForwardCorrectionLoss(LossTerm):
    """Cross-entropy of what the labels would look like after the noise: -log (T^T p)_y, T_ij = P(given j | true i).

    The softmax p is then the posterior of the true class: with the right T, the minimizer over noisy labels is that
    over clean ones, for noise that depends on the class alone. Source: Patrini et al. 2017, theorem 2. Computed as
    logsumexp_i(log T_iy + log p_i), so a saturated softmax costs nothing.

    T is estimated, not known, where no matrix is given: a run whose loss leaves ``transition`` open first trains the
    same arm with cross-entropy on the same labels, and estimates T from its predictions (``anchor_transition``). It is
    never told the matrix that a synthetic noise was drawn from. Built by hand without a matrix it is plain
    cross-entropy (T = I).

    Args:
        num_classes: K; a run fills it in.
        transition: T (K, K), rows summing to one; or None.

    Raises:
        ValueError: If T is not K x K, has an entry outside [0, 1] or a row that does not sum to 1, or a column of
            zeros: a label that cannot occur.

    Example:
        >>> loss = ForwardCorrectionLoss(2, [[0.9, 0.1], [0.2, 0.8]])
        >>> [round(x, 3) for x in loss.transition.flatten().tolist()]
        [0.9, 0.1, 0.2, 0.8]
    """

    log_columns: Tensor

    def __init__(self, num_classes: int, transition: Tensor | Sequence[Sequence[float]] | None = None) -> None:
        super().__init__()
        if transition is None:
            matrix = torch.eye(num_classes, dtype=torch.float64)
        else:
            matrix = checked_transition(transition, num_classes)
        never = (matrix.sum(0) <= 0).nonzero().flatten().tolist()
        if never:
            raise ValueError(
                f"every class must be the label of some sample, but the transition matrix has only zeros in columns "
                f"{never}: a sample with such a label would have an infinite loss"
            )
        # Persistent: a run that resumes need not estimate it again.
        self.register_buffer("log_columns", matrix.T.log().float().contiguous())

    @property
    def transition(self) -> Tensor:
        """T (K, K), float32: row i holds P(given j | true i)."""
        return self.log_columns.exp().T

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        return forward_corrected(outputs.logits, batch.labels, self.log_columns).mean()

    def extra_repr(self) -> str:
        """Show the number of classes in the loss's printout."""
        return f"{len(self.log_columns)}"
