"""Class weights over any loss, from the start or from late in training on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nc_tools.losses.class_weights import class_balanced_weights
from nc_tools.losses.cross_entropy import CrossEntropyLoss
from nc_tools.losses.loss_term import LossTerm
from nc_tools.losses.per_sample import PerSampleLoss, weighted_mean
from nc_tools.records import Batch, Outputs
from nc_tools.schedules import check_progress
from nc_tools.spec import Spec


class ClassBalancedLoss(LossTerm):
    """Any loss per sample, averaged with class weights: sum_i w_{y_i} l_i / sum_i w_{y_i}.

    The weights are those of :func:`~nc_tools.losses.class_balanced_weights`, from equal ones to inverse frequencies.
    Source: Cui et al. (2019, section 4); they divide by the number of samples, we by the batch's weights, as the public
    code of deferred re-weighting does, so that a batch of rare samples does not take a longer step.

    Args:
        class_counts: Training samples of each class (K,); a run fills it in.
        loss: What is weighted, built or as ``spec(LDAMLoss)``; cross-entropy if None.
        beta: In [0, 1].

    Raises:
        TypeError: If the loss has no value per sample.
        ValueError: If beta is outside [0, 1] or a class has no sample.

    Example:
        >>> ClassBalancedLoss([90, 10], beta=0.99).weight.sum()
        tensor(2.)
    """

    weight: Tensor

    def __init__(
        self,
        class_counts: Tensor | Sequence[int],
        *,
        loss: PerSampleLoss | Spec[PerSampleLoss] | None = None,
        beta: float = 0.9999,
    ) -> None:
        super().__init__()
        weights = class_balanced_weights(class_counts, beta)
        known = {"class_counts": class_counts, "num_classes": len(weights)}
        self.loss = CrossEntropyLoss() if loss is None else loss.build(known) if isinstance(loss, Spec) else loss
        if not isinstance(self.loss, PerSampleLoss):
            raise TypeError(
                f"class weights need a loss with a value per sample, got {type(self.loss).__name__}: derive it from "
                f"PerSampleLoss"
            )
        self.beta = beta
        self.register_buffer("weight", weights, persistent=False)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the weighted mean over the batch."""
        if outputs.num_classes != len(self.weight):
            raise ValueError(
                f"the class weights are of {len(self.weight)} classes, but the head has {outputs.num_classes}: give "
                f"{type(self).__name__} the class_counts of the data that the head is trained on"
            )
        return weighted_mean(self.loss.per_sample(outputs, batch), batch.labels, self.weight)

    def extra_repr(self) -> str:
        """Show the strength in the loss's printout."""
        return f"beta={self.beta}"


class DeferredReweightingLoss(ClassBalancedLoss):
    """Deferred re-weighting (DRW): the plain mean at first, class weights from a late point of training on.

    Weights from the start hurt the features; late ones move the boundaries of features that are already good. Source:
    Cao et al. (2019, algorithm 1), who switch at epoch 160 of 200, together with a fall of the learning rate.

    The weights live in a buffer that is written in place, so that a compiled step stays compiled.

    Args:
        class_counts: Training samples of each class (K,); a run fills it in.
        loss: What is weighted, built or as ``spec(LDAMLoss)``; cross-entropy if None.
        beta: In [0, 1].
        start: Share of training from which on the classes are weighted, in [0, 1].

    Raises:
        TypeError: If the loss has no value per sample.
        ValueError: If start or beta is outside [0, 1], or a class has no sample.

    Example:
        >>> loss = DeferredReweightingLoss([90, 10])
        >>> loss.set_progress(0.79)
        >>> loss.weight
        tensor([1., 1.])
        >>> loss.set_progress(0.8)
        >>> bool(loss.weight[1] > loss.weight[0])
        True
    """

    late: Tensor

    def __init__(
        self,
        class_counts: Tensor | Sequence[int],
        *,
        loss: PerSampleLoss | Spec[PerSampleLoss] | None = None,
        beta: float = 0.9999,
        start: float = 0.8,
    ) -> None:
        if not 0 <= start <= 1:
            raise ValueError(f"start is a share of training in [0, 1], got {start}")
        super().__init__(class_counts, loss=loss, beta=beta)
        self.start = start
        self.register_buffer("late", self.weight.clone(), persistent=False)
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """Choose the weights of this step."""
        super().set_progress(check_progress(progress))
        with torch.no_grad():
            if progress >= self.start:
                self.weight.copy_(self.late)
            else:
                self.weight.fill_(1.0)

    def extra_repr(self) -> str:
        """Show strength and start in the loss's printout."""
        return f"beta={self.beta}, start={self.start}"
