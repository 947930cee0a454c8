"""Early-learning regularization: keep each sample's prediction close to its earlier predictions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools._support.precision import at_least_float32
from nc_tools._support.tracing import traced
from nc_tools.losses._distributed import gather_rows
from nc_tools.losses._rows import kept_mean, may_read
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs

# Keeps 1 - <t, p> away from zero, where its logarithm would be infinite.
_LEAST = 1e-4


class EarlyLearningLoss(LossTerm):
    """Early-learning regularization (ELR): cross-entropy plus a term that keeps earlier predictions.

    The term is lambda * mean_i log(1 - <t_i, p_i>), t_i a running mean of the sample's own predictions.

    A network learns the clean labels first and memorizes the wrong ones later. The second term, which is negative,
    rewards agreement with the sample's earlier predictions, and so cancels the gradient of labels that contradict them.
    With p the softmax clamped to [1e-4, 1 - 1e-4],

        t_i <- beta t_i + (1 - beta) p_i / sum_k p_ik      (without gradient, before the loss is computed)

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads ``batch.index``, the sample's place in
    the full training set. Targets t_i are stored by this index, so shuffling, subsets and resuming do not mix them up.
    They change in training mode only, and not under ``torch.no_grad()``. With several processes, indices and
    predictions are exchanged, so that all hold the same targets; batches may differ in size, and the host waits for
    their sizes once a step.

    Source: Liu et al. 2020, eq. 6 and 9 (ELR, not ELR+), with the clamp and the order of their code.

    Args:
        num_samples: Size of the full training set. A run fills it in.
        num_classes: K. A run fills it in.
        strength: lambda; 3 on CIFAR-10 and 7 on CIFAR-100 in the paper.
        momentum: beta; .7 on CIFAR-10 and .9 on CIFAR-100.

    Raises:
        ValueError: If ``num_samples`` < 1, ``num_classes`` < 2, ``strength`` is negative or not finite, or ``momentum``
            is outside [0, 1); when called, if ``batch.index`` on the CPU holds an index outside the training set.

    Example:
        >>> loss = EarlyLearningLoss(num_samples=100, num_classes=3)
        >>> loss.targets.shape
        torch.Size([100, 3])
    """

    targets: Tensor

    def __init__(self, num_samples: int, num_classes: int, strength: float = 3.0, momentum: float = 0.7) -> None:
        super().__init__()
        if num_samples < 1 or num_classes < 2:
            raise ValueError(
                f"EarlyLearningLoss needs num_samples >= 1 and num_classes >= 2, got num_samples={num_samples} "
                f"and num_classes={num_classes}"
            )
        if not (0 <= strength < math.inf and 0 <= momentum < 1):
            raise ValueError(
                f"strength must be finite and not negative, and momentum must lie in [0, 1), got "
                f"strength={strength} and momentum={momentum}"
            )
        self.strength, self.momentum = strength, momentum
        self.register_buffer("targets", torch.zeros(num_samples, num_classes))

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return targets of 0, those of samples that have not been trained on."""
        return {"targets": torch.zeros(self.targets.shape, device="cpu")}

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss of the samples that count. In training, first update their targets."""
        logits, kept = at_least_float32(outputs.logits, "logits"), batch.kept
        p = logits.detach().softmax(1)
        self._check_places(batch.index)
        if self.training and torch.is_grad_enabled():
            self._update_targets(p.clamp(_LEAST, 1 - _LEAST), batch.index, kept)
        targets = self.targets.index_select(0, batch.index).to(logits.dtype)
        if traced():
            values = _stepwise(logits, batch.labels, targets, self.strength)
        else:
            values = _FitAndAgreement.apply(logits, batch.labels, targets, p, self.strength)
        return kept_mean(values, kept)

    def _check_places(self, index: Tensor) -> None:
        if not may_read(index):
            return
        low, high = index.aminmax()
        if low.item() < 0 or high.item() >= len(self.targets):
            raise ValueError(
                f"batch.index must hold places in the {len(self.targets)} samples for which the loss was built, got "
                f"{int(low)} to {int(high)}: build it with num_samples of the whole training set"
            )

    def _update_targets(self, p: Tensor, index: Tensor, kept: Tensor | None) -> None:
        table, p = self.targets, p / p.sum(1, keepdim=True)
        if kept is not None:  # the target of a sample that does not count stays as it is
            p = torch.where(kept[:, None], p, table.index_select(0, index).to(p.dtype))
        index, predictions = gather_rows(index, p)
        with torch.no_grad():
            moved = torch.lerp(table.index_select(0, index), predictions.to(table.dtype), 1 - self.momentum)
            table.index_copy_(0, index, moved)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        samples, classes = self.targets.shape
        return f"{samples}, {classes}, strength={self.strength}, momentum={self.momentum}"


def _stepwise(z: Tensor, labels: Tensor, targets: Tensor, strength: float) -> Tensor:
    agreement = (targets * z.softmax(1).clamp(_LEAST, 1 - _LEAST)).sum(1)
    return nn.functional.cross_entropy(z, labels, reduction="none") + strength * torch.log1p(-agreement)


class _FitAndAgreement(torch.autograd.Function):
    """-log p_y + lambda log(1 - a) of each sample (N,), with a = <t, q> and q the clamped p.

    The gradient in z is p (1 + w (h - <h, p>)) - e_y, with w = -lambda / (1 - a), and h = t where the clamp does not
    change p, 0 elsewhere.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, labels: Tensor, targets: Tensor, p: Tensor, strength: float) -> Tensor:
        own, clamped = labels.unsqueeze(1), p.clamp(_LEAST, 1 - _LEAST)
        nll = z.amax(1, keepdim=True).sub_(z.gather(1, own)).sub_(p.amax(1, keepdim=True).log_())
        agreement = torch.linalg.vecdot(targets, clamped).unsqueeze(1)
        ctx.save_for_backward(z, labels, targets, p, agreement)
        ctx.strength = strength
        return (nll + strength * torch.log1p(-agreement)).squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, labels, targets, p, agreement = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives: what is saved does not depend on z
            value = _stepwise(z, labels, targets, ctx.strength)
            return *torch.autograd.grad(value, z, grad, create_graph=True), None, None, None, None
        share = grad.unsqueeze(1)
        pull = share * ctx.strength / (agreement - 1)
        # h in one pass: to compute a mask and apply it takes as long as the rest of the loss.
        unclamped = torch.ops.aten.hardtanh_backward(targets, p, _LEAST, 1 - _LEAST)
        rest = share - pull * torch.linalg.vecdot(unclamped, p).unsqueeze(1)
        back = (unclamped * pull).add_(rest).mul_(p)
        return back.scatter_add_(1, labels.unsqueeze(1), -share), None, None, None, None
