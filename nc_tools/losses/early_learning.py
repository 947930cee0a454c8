"""Early-learning regularization: hold on to what the model believed of each sample before it memorized."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nc_tools._support.tracing import traced
from nc_tools.losses.loss_term import LossTerm
from nc_tools.losses.per_sample import checked_logits
from nc_tools.records import Batch, Outputs

# Keeps 1 - <t, p> away from zero, where its logarithm would run off.
_LEAST = 1e-4


class EarlyLearningLoss(LossTerm):
    """Cross-entropy plus lambda mean_i log(1 - <t_i, p_i>), t_i a running mean of the sample's own predictions.

    A network learns the clean labels first and memorizes the wrong ones later. The second term, a negative one, rewards
    agreement with the sample's past predictions and so cancels the gradient of labels that contradict them. With p the
    softmax clamped to [1e-4, 1 - 1e-4],

        t_i <- beta t_i + (1 - beta) p_i / sum_k p_ik      (no gradient; before it is used)

    Source: Liu et al. 2020, eq. 6 and 9 (ELR, not ELR+), with the clamp and the order of their code. Targets are kept
    by ``batch.index``, the sample's place in the whole training set: shuffling, subsets and resuming do not mix them
    up. They move in training mode only. With several processes, indices and predictions are exchanged, so that all hold
    the same targets whoever saw the sample; batches may differ in size, for which the host waits once a step.

    Args:
        num_samples: Size of the whole training set; a run fills it in.
        num_classes: K; a run fills it in.
        strength: lambda; 3 on CIFAR-10, 7 on CIFAR-100 in the paper.
        momentum: beta; .7 on CIFAR-10, .9 on CIFAR-100.

    Raises:
        ValueError: If a size is not positive, ``strength`` is negative or ``momentum`` outside [0, 1).

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
                f"early learning keeps a target for each sample and class and needs num_samples >= 1 and "
                f"num_classes >= 2, got {num_samples} and {num_classes}"
            )
        if not (0 <= strength < math.inf and 0 <= momentum < 1):
            raise ValueError(
                f"strength must be finite and not negative, momentum in [0, 1), got {strength} and {momentum}"
            )
        self.strength, self.momentum = strength, momentum
        self.register_buffer("targets", torch.zeros(num_samples, num_classes))

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch; in training mode the targets of its samples take their step first."""
        logits = checked_logits(outputs.logits, batch.labels)
        p = logits.detach().softmax(1)
        if self.training:
            self._follow(p.clamp(_LEAST, 1 - _LEAST), batch.index)
        targets = self.targets.index_select(0, batch.index).to(logits.dtype)
        if traced():
            return _stepwise(logits, batch.labels, targets, self.strength)
        found: Tensor = _FitAndAgreement.apply(logits, batch.labels, targets, p, self.strength)
        return found

    @torch.no_grad()
    def _follow(self, p: Tensor, index: Tensor) -> None:
        """Move the targets of these samples towards their predictions."""
        where, seen = _from_all_processes(index, p / p.sum(1, keepdim=True))
        moved = torch.lerp(self.targets.index_select(0, where), seen.to(self.targets.dtype), 1 - self.momentum)
        self.targets.index_copy_(0, where, moved)

    def extra_repr(self) -> str:
        """Show sizes, strength and momentum in the loss's printout."""
        samples, classes = self.targets.shape
        return f"{samples}, {classes}, strength={self.strength}, momentum={self.momentum}"


def _stepwise(z: Tensor, labels: Tensor, targets: Tensor, strength: float) -> Tensor:
    agreement = (targets * z.softmax(1).clamp(_LEAST, 1 - _LEAST)).sum(1)
    return nn.functional.cross_entropy(z, labels) + strength * torch.log1p(-agreement).mean()


class _FitAndAgreement(torch.autograd.Function):
    """mean -log p_y + lambda log(1 - a), a = <t, q>, q the clamped p; in z: p (1 + w (h - <h, p>)) - e_y.

    With w = -lambda / (1 - a) and h = t where the clamp lets p through, 0 elsewhere.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, labels: Tensor, targets: Tensor, p: Tensor, strength: float) -> Tensor:
        own, clamped = labels.unsqueeze(1), p.clamp(_LEAST, 1 - _LEAST)
        surprise = z.amax(1, keepdim=True).sub_(z.gather(1, own)).sub_(p.amax(1, keepdim=True).log_())
        agreement = torch.linalg.vecdot(targets, clamped).unsqueeze(1)
        ctx.save_for_backward(z, labels, targets, p, agreement)
        ctx.strength = strength
        return (surprise + strength * torch.log1p(-agreement)).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, labels, targets, p, agreement = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: what is saved does not depend on z
            value = _stepwise(z, labels, targets, ctx.strength)
            return *torch.autograd.grad(value, z, grad, create_graph=True), None, None, None, None
        share = (grad / len(p)).expand(len(p), 1)
        pull = share * ctx.strength / (agreement - 1)
        # What the clamp lets through, in one pass: a mask of its own costs as much as the rest of the loss.
        through = torch.ops.aten.hardtanh_backward(targets, p, _LEAST, 1 - _LEAST)
        rest = share - pull * torch.linalg.vecdot(through, p).unsqueeze(1)
        back = (through * pull).add_(rest).mul_(p)
        return back.scatter_add_(1, labels.unsqueeze(1), -share), None, None, None, None


def _from_all_processes(index: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return every process's indices (N,) and rows (N, K), in the order of the ranks."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return index, rows
    world = dist.get_world_size()
    sizes = index.new_zeros(world)
    sizes[dist.get_rank()] = len(index)
    dist.all_reduce(sizes)
    lengths = sizes.tolist()
    longest = max(lengths)
    # Backends gather equal shapes only: shorter batches are filled up, and cut again below.
    sent_index = index.new_zeros(longest)
    sent_rows = rows.new_zeros(longest, rows.shape[1])
    sent_index[: len(index)], sent_rows[: len(rows)] = index, rows
    indices = [torch.empty_like(sent_index) for _ in range(world)]
    gathered = [torch.empty_like(sent_rows) for _ in range(world)]
    dist.all_gather(indices, sent_index)
    dist.all_gather(gathered, sent_rows)
    return (
        torch.cat([part[:n] for part, n in zip(indices, lengths, strict=True)]),
        torch.cat([part[:n] for part, n in zip(gathered, lengths, strict=True)]),
    )
