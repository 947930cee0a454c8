"""Losses that are a mean over samples, and weighted means."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, overload

import torch
from torch import Tensor

from nc_tools.losses._distributed import mean_over_processes, process_count, sum_over_processes
from nc_tools.losses._rows import IGNORED, LabeledRows, Reduction, kept_mean
from nc_tools.losses._weightable import WeightableLoss
from nc_tools.losses._whole_batch import whole_batch
from nc_tools.losses.loss_term import outside_autocast
from nc_tools.records import Batch, Outputs


class PerSampleLoss(WeightableLoss):
    """The base of losses with one value for each sample. The loss of a batch is their mean.

    Losses that weight samples accept any of these, such as :class:`~nc_tools.losses.DeferredReweightingLoss`. A loss of
    your own overrides :meth:`compute_per_sample`.
    """

    @abstractmethod
    def compute_per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss of each sample (N,); for a sample that does not count, any finite number.

        Override this method, but call :meth:`per_sample`, which checks the labels first.
        """

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss of the samples that count."""
        return kept_mean(self.compute_per_sample(outputs, batch), batch.kept)

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Return the loss of each sample (N,) from logits and labels alone, where that is possible.

        Raises:
            TypeError: If the loss needs more than logits.
        """
        raise self.needs_records()

    def per_sample_from_probabilities(self, logits: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        """Return the loss of each sample (N,) for labels that are probabilities (N, K), where that is defined.

        Raises:
            TypeError: If the loss is defined for class indices only.
        """
        raise self.needs_class_indices(targets)

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean of :meth:`per_sample_from_logits`."""
        return self.per_sample_from_logits(logits, labels).mean()

    def of_rows(self, rows: LabeledRows) -> Tensor:
        """Return the mean loss of logits and labels that are checked."""
        if rows.kept is None and not rows.are_soft():
            return self.from_logits(rows.logits, rows.labels)
        return kept_mean(self.values_of(rows), rows.kept)

    def values_of(self, rows: LabeledRows) -> Tensor:
        """Return the loss of each row (N,); for a row that does not count, any finite number."""
        one = self.per_sample_from_probabilities if rows.are_soft() else self.per_sample_from_logits
        return one(rows.logits, rows.labels)

    def weighted(
        self,
        outputs: Any,
        batch: Any,
        ignore_index: int,
        sample_weight: Tensor | None,
        class_weight: Tensor | None,
        reduction: Reduction,
    ) -> Tensor:
        """Return the loss with weights, or with another reduction than the mean."""
        values, rows = self._each(outputs, batch, ignore_index)
        num_classes = rows.logits.shape[1] if isinstance(outputs, Tensor) else outputs.num_classes
        weights = _weights(rows, values, sample_weight, class_weight, num_classes)
        if reduction == "none":
            return (weights * values).view(rows.shape)
        total = torch.dot(weights, values)
        return total if reduction == "sum" else total / _nonzero(mean_over_processes(weights.sum()))

    @overload
    def per_sample(self, outputs: Outputs, batch: Batch, /, *, ignore_index: int = ...) -> Tensor: ...
    @overload
    def per_sample(self, logits: Tensor, labels: Tensor, /, *, ignore_index: int = ...) -> Tensor: ...
    def per_sample(self, outputs: Any, batch: Any, /, *, ignore_index: int = IGNORED) -> Tensor:
        """Return the loss of each sample that counts; their mean is the loss.

        Takes the same arguments, with the same checks, as the loss itself. If some samples do not count, the result is
        shorter than the batch, and on a GPU the host waits for its length. A call of the loss with
        ``reduction="none"`` returns 0 for them instead.
        """
        values, rows = self._each(outputs, batch, ignore_index)
        return values.view(rows.shape) if rows.kept is None else values[rows.kept]

    def _each(self, outputs: Any, batch: Any, ignore_index: int) -> tuple[Tensor, LabeledRows]:
        """Return the loss of each row, 0 where it does not count, and the checked rows."""
        if isinstance(outputs, Tensor):
            rows = self.checked_rows(outputs, batch, ignore_index)
            values = outside_autocast(outputs, self.values_of, rows)
        else:
            checked = self.checked_batch(outputs, batch, ignore_index)
            rows = LabeledRows(outputs.features, checked.labels, checked.kept, checked.labels.shape)
            mine = slice(None)
            if self.over_batch:
                outputs, checked, mine = whole_batch(outputs, checked)
            values = outside_autocast(outputs.features, self.compute_per_sample, outputs, checked)[mine]
        return values if rows.kept is None else torch.where(rows.kept, values, 0), rows


def _weights(
    rows: LabeledRows, values: Tensor, sample_weight: Tensor | None, class_weight: Tensor | None, num_classes: int
) -> Tensor:
    """Return the weight of each row (N,); 0 for a row that does not count."""
    weights = torch.ones_like(values)
    if class_weight is not None:
        check_class_weight(class_weight, num_classes)
        weights = _of_classes(class_weight.to(values.dtype), rows.labels)
    if sample_weight is not None:
        if sample_weight.shape != rows.shape:
            raise ValueError(
                f"sample_weight must have the shape of the labels, {tuple(rows.shape)}, got "
                f"{tuple(sample_weight.shape)}"
            )
        weights = weights * sample_weight.to(values.dtype).flatten()
    return weights if rows.kept is None else torch.where(rows.kept, weights, 0)


def check_class_weight(class_weight: Tensor, num_classes: int) -> None:
    """Check that class weights have the shape (K,).

    Raises:
        ValueError: If they have another.
    """
    if class_weight.shape != (num_classes,):
        raise ValueError(f"class_weight must have the shape ({num_classes},), got {tuple(class_weight.shape)}")


def _of_classes(class_weights: Tensor, labels: Tensor) -> Tensor:
    """Return the weight of each row (N,): that of its class, or the mean over its probabilities of the classes."""
    return labels @ class_weights if labels.ndim == 2 else class_weights.index_select(0, labels)


def _nonzero(total: Tensor) -> Tensor:
    """Return a sum of weights, or 1 if it is 0: then no sample counts, and 0 / 1 is the mean."""
    return torch.where(total == 0, 1, total)


def weighted_mean(values: Tensor, labels: Tensor, class_weights: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return the mean of values v with class weights w: sum_i w_{y_i} v_i / sum_i w_{y_i}.

    The sum in the denominator is over the batch, as in ``torch.nn.functional.cross_entropy(weight=...)``, so that the
    weights change the shares of the classes and not the learning rate. In distributed training it is the mean of the
    processes' sums, so that the mean over processes is that of one process with all samples.

    Args:
        values: (N,).
        labels: Class indices (N,), int64; or probabilities of the classes (N, K).
        class_weights: (K,), not negative.
        kept: Which samples count (N,), bool; None for all.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
        tensor(1.7500)
    """
    weights = _of_classes(class_weights.to(values.dtype), labels)
    if kept is None:
        return torch.dot(weights, values) / mean_over_processes(weights.sum())
    weights, values = (torch.where(kept, part, 0) for part in (weights, values))
    return torch.dot(weights, values) / _nonzero(mean_over_processes(weights.sum()))


def class_mean(values: Tensor, labels: Tensor, num_classes: int, kept: Tensor | None = None) -> Tensor:
    """Return the mean of values over each class's samples, then over the classes of the batch.

    A class without a sample in the batch does not count. In distributed training the classes are counted over all
    processes, and the mean over processes is that of one process with all samples.

    Args:
        values: (N,).
        labels: Class indices (N,), int64.
        num_classes: K.
        kept: Which samples count (N,), bool; None for all.

    Example:
        >>> class_mean(torch.tensor([1.0, 3.0, 6.0]), torch.tensor([0, 0, 2]), 3)
        tensor(4.)
    """
    ones = torch.ones_like(values.detach()) if kept is None else kept.to(values.dtype)
    counts = torch.zeros(num_classes, dtype=values.dtype, device=values.device).index_add(0, labels, ones)
    if kept is not None:
        values, counts = torch.where(kept, values, 0), counts.clamp(min=0)
    counts = sum_over_processes(counts)
    present = counts > 0
    mean = (values / counts.clamp(min=1).index_select(0, labels)).sum() / present.sum().clamp(min=1)
    return mean * process_count() if process_count() > 1 else mean
