"""Class weights for any loss with a value for each sample, from the start of training or from a later point on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nc_tools.losses._rows import LabeledRows, Reduction
from nc_tools.losses._weightable import WeightableLoss
from nc_tools.losses.class_weights import class_balanced_weights
from nc_tools.losses.cross_entropy import CrossEntropyLoss
from nc_tools.losses.per_sample import PerSampleLoss, check_class_weight, weighted_mean
from nc_tools.records import Batch, Outputs
from nc_tools.schedules import check_progress
from nc_tools.specs import Spec


class ClassBalancedLoss(WeightableLoss):
    """The mean of any per-sample loss with class weights: sum_i w_{y_i} l_i / sum_i w_{y_i}.

    The weights are those of :func:`~nc_tools.losses.class_balanced_weights`, from equal ones to inverse frequencies.
    Source: Cui et al. (2019, section 4). They divide by the number of samples. This loss divides by the sum of the
    batch's weights, as the public code of deferred re-weighting does, so that a batch with samples of rare classes does
    not make a longer step.

    Takes ``(logits, labels)`` if the weighted loss does, and always ``(outputs, batch)``, from
    ``nc_tools.watch(model)``.

    Args:
        class_counts: Training samples of each class (K,). A run fills it in.
        loss: The loss to weight, built or as ``spec(LDAMLoss)``. None: cross-entropy.
        beta: In [0, 1].

    Raises:
        TypeError: If the loss has no value for each sample.
        ValueError: If beta is outside [0, 1], or a count is negative or all are 0.

    Example:
        >>> loss = ClassBalancedLoss([90, 10], beta=0.99)
        >>> loss.weight.sum()
        tensor(2.)
        >>> loss(torch.zeros(3, 2), torch.tensor([0, 0, 1]))
        tensor(0.6931)
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
        facts = {"class_counts": class_counts, "num_classes": len(weights)}
        self.loss = CrossEntropyLoss() if loss is None else loss.build(facts) if isinstance(loss, Spec) else loss
        if not isinstance(self.loss, PerSampleLoss):
            raise TypeError(
                f"class weights need a loss with a value for each sample, got {type(self.loss).__name__}. Derive it "
                f"from PerSampleLoss, or pass another loss."
            )
        self.over_batch = self.loss.over_batch
        self.beta = beta
        self.keep_buffer("weight", weights, persistent=False)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the class-weighted mean loss of the samples that count."""
        weight = self._weight_for(outputs.num_classes)
        return weighted_mean(self.loss.compute_per_sample(outputs, batch), batch.labels, weight, batch.kept)

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the class-weighted mean loss of the batch."""
        return self.of_rows(LabeledRows(logits, labels, None, labels.shape))

    def of_rows(self, rows: LabeledRows) -> Tensor:
        """Return the class-weighted mean loss of logits and labels that are checked."""
        weight, values = self._weight_for(rows.logits.shape[1]), self.loss.values_of(rows)
        return weighted_mean(values, rows.labels, weight, rows.kept)

    def weighted(
        self,
        outputs: Any,
        batch: Any,
        ignore_index: int,
        sample_weight: Tensor | None,
        class_weight: Tensor | None,
        reduction: Reduction,
    ) -> Tensor:
        """Return the loss with further weights, or with another reduction than the mean."""
        num_classes = (
            outputs.num_classes if isinstance(outputs, Outputs) else outputs.shape[1 if outputs.ndim == 4 else -1]
        )
        own = self._weight_for(num_classes)
        if class_weight is not None:
            check_class_weight(class_weight, num_classes)
            own = own * class_weight
        return self.loss.weighted(outputs, batch, ignore_index, sample_weight, own, reduction)

    def _weight_for(self, num_classes: int) -> Tensor:
        weight = self.weight
        if weight.shape[0] != num_classes:
            raise ValueError(
                f"the class weights are of {weight.shape[0]} classes, but the logits have {num_classes}. Build "
                f"{type(self).__name__} with class_counts of all {num_classes} classes, 0 for a class without training "
                f"samples."
            )
        return weight

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"beta={self.beta}"


class DeferredReweightingLoss(ClassBalancedLoss):
    """Deferred re-weighting (DRW): the plain mean first, class weights in the last part of training.

    Class weights from the start make the features worse. Late ones move the decision boundaries of features that are
    already good. Source: Cao et al. (2019, algorithm 1), who switch at epoch 160 of 200, where the learning rate falls
    too.

    In a loop of your own call ``loss.set_progress(step / steps)`` before each step. Without it the weights would never
    be used, so the loss then raises an error in training. The weights are written into one buffer in place, so that a
    compiled step is not compiled again.

    Takes ``(logits, labels)`` if the weighted loss does, and always ``(outputs, batch)``, from
    ``nc_tools.watch(model)``.

    Args:
        class_counts: Training samples of each class (K,). A run fills it in.
        loss: The loss to weight, built or as ``spec(LDAMLoss)``. None: cross-entropy.
        beta: In [0, 1].
        start: Share of training from which on the classes are weighted, in [0, 1].

    Raises:
        TypeError: If the loss has no value for each sample.
        ValueError: If start or beta is outside [0, 1], or a count is negative or all are 0.

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
            raise ValueError(f"start must lie in [0, 1], a share of training, got {start}. Write epoch / epochs.")
        super().__init__(class_counts, loss=loss, beta=beta)
        self.start = start
        self.needs_progress = start > 0
        self.keep_buffer("late", self.initial_buffers()["weight"], persistent=False)
        if start > 0:
            self.keep_buffer("weight", torch.ones(len(self.late), device="cpu"), persistent=False)

    def set_progress(self, progress: float) -> None:
        """Set the class weights for this share of training (0 to 1)."""
        super().set_progress(check_progress(progress))
        self._set_weights(progress)

    def _set_weights(self, progress: float) -> None:
        with torch.no_grad():
            if progress >= self.start:
                self.weight.copy_(self.late)
            else:
                self.weight.fill_(1.0)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"beta={self.beta}, start={self.start}"
