"""Losses that need only logits and labels."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.losses._rows import kept_mean
from nc_tools.losses.per_sample import PerSampleLoss
from nc_tools.records import Batch, Outputs


class LogitLoss(PerSampleLoss):
    """The base of losses that need only logits: called as ``loss(logits, labels)`` or ``loss(outputs, batch)``.

    ``loss.per_sample(logits, labels)`` returns the loss of each sample. A loss of your own overrides
    :meth:`per_sample_from_logits`, and :meth:`from_logits` too if the mean alone is cheaper to compute.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> class PolyLoss(LogitLoss):
        ...     def per_sample_from_logits(self, logits, labels):
        ...         nll = cross_entropy(logits, labels, reduction="none")
        ...         return nll + 1 - (-nll).exp()
        >>> loss, logits, labels = PolyLoss(), torch.zeros(2, 4), torch.tensor([0, 3])
        >>> loss(logits, labels)
        tensor(2.1363)
        >>> loss.per_sample(logits, labels)
        tensor([2.1363, 2.1363])
    """

    @abstractmethod
    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each sample (N,).

        Args:
            logits: (N, K), float32 or float64.
            labels: Class indices (N,), int64.
        """

    def compute_per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss of each sample (N,)."""
        return self.per_sample_from_logits(at_least_float32(outputs.logits, "logits"), batch.labels)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss of the samples that count."""
        logits = outputs.logits
        if logits.dtype != torch.float32:  # saves a call in most training steps
            logits = at_least_float32(logits, "logits")
        if batch.kept is None:
            return self.from_logits(logits, batch.labels)
        return kept_mean(self.per_sample_from_logits(logits, batch.labels), batch.kept)
