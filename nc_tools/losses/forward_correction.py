"""Forward correction for label noise with a given or estimated transition matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nc_tools._support.tracing import traced
from nc_tools.losses._rows import expected_loss, rows_of
from nc_tools.losses.logit_loss import LogitLoss
from nc_tools.metrics.label_noise.transition import checked_transition


def forward_corrected(logits: Tensor, labels: Tensor, log_columns: Tensor) -> Tensor:
    """Return the cross-entropy of the noisy label, -log (T^T p)_y, for each sample. See :class:`ForwardCorrectionLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        log_columns: log T transposed (K, K): row y holds log T_iy over i; minus infinity where T is 0.

    Returns:
        (N,).
    """
    return rows_of(logits, labels).apply(lambda z, y, _: _corrected(z, log_columns.index_select(0, y)), "none")


def _corrected(z: Tensor, columns: Tensor) -> Tensor:
    if traced():
        return _stepwise(z, columns)
    value: Tensor = _TwoSoftmaxes.apply(z, columns)
    return value


def _stepwise(z: Tensor, columns: Tensor) -> Tensor:
    return z.logsumexp(1) - (z + columns).logsumexp(1)


class _TwoSoftmaxes(torch.autograd.Function):
    """lse(z) - lse(z + c), with the gradient softmax(z) - softmax(z + c)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, columns: Tensor) -> Tensor:
        mixed = z + columns
        p, r = z.softmax(1), mixed.softmax(1)
        ctx.save_for_backward(z, columns, p, r)
        # A log-sum-exp is the largest logit minus the log of the largest probability, which never underflows.
        return z.amax(1).sub_(mixed.amax(1)).add_(r.amax(1).log_()).sub_(p.amax(1).log_())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        z, columns, p, r = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives: what is saved does not depend on z
            return *torch.autograd.grad(_stepwise(z, columns), z, grad, create_graph=True), None
        return (p - r) * grad.unsqueeze(1), None


class ForwardCorrectionLoss(LogitLoss):
    """Cross-entropy of the noisy label under the transition matrix T: -log (T^T p)_y, T_ij = P(label j | true class i).

    The softmax p is then the posterior of the true class. With the right T, and noise that depends on the class alone,
    the minimizer on noisy labels is the same as on clean labels. Source: Patrini et al. 2017, theorem 2. It is computed
    as -logsumexp_i(log T_iy + log p_i), which is accurate for a saturated softmax too.

    If no matrix is given, a run estimates it: it first trains the same arm with cross-entropy on the same labels, and
    estimates T from the predictions (``anchor_transition``). It never uses the matrix from which synthetic noise was
    drawn. Built without a matrix in your own loop, the loss is plain cross-entropy (T = I).

    Args:
        num_classes: K. A run fills it in.
        transition: T (K, K), rows summing to one. None: the estimate of a run, or I in your own loop.

    Raises:
        ValueError: If T is not K x K, has an entry outside [0, 1] or a row that does not sum to 1, or a column of
            zeros: a label that cannot occur.

    Example:
        >>> loss = ForwardCorrectionLoss(2, [[0.9, 0.1], [0.2, 0.8]])
        >>> [round(x, 3) for x in loss.transition.flatten().tolist()]
        [0.9, 0.1, 0.2, 0.8]
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))  # -log .55
        tensor(0.5978)
    """

    log_columns: Tensor

    def __init__(self, num_classes: int, transition: Tensor | Sequence[Sequence[float]] | None = None) -> None:
        super().__init__()
        if transition is None:
            matrix = torch.eye(num_classes, dtype=torch.float64, device="cpu")
        else:
            matrix = checked_transition(transition, num_classes)
        never = (matrix.sum(0) <= 0).nonzero().flatten().tolist()
        if never:
            raise ValueError(
                f"every class must be the label of some sample, but columns {never} of the transition matrix are zero. "
                f"A sample with such a label would have an infinite loss: correct the matrix."
            )
        # In checkpoints, so that a resumed run need not estimate it again.
        self.keep_buffer("log_columns", matrix.T.log().float().contiguous())

    @property
    def transition(self) -> Tensor:
        """The transition matrix (K, K), float32: row i holds the probability of each label for true class i."""
        return self.log_columns.exp().T

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the corrected cross-entropy of each sample (N,)."""
        return _corrected(logits, self.log_columns.index_select(0, labels))

    def per_sample_from_probabilities(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the corrected cross-entropy of each sample (N,) to probabilities of the noisy label."""
        predicted = logits.softmax(1) @ self.log_columns.exp().T
        return expected_loss(predicted.clamp(min=torch.finfo(predicted.dtype).tiny).log(), targets)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"{len(self.log_columns)}"
