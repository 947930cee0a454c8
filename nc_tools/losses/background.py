"""Cross-entropy with a background class that no sample belongs to."""

from __future__ import annotations

from torch import Tensor, nn

from nc_tools.losses._rows import expected_loss
from nc_tools.losses.logit_loss import LogitLoss


class BackgroundCrossEntropyLoss(LogitLoss):
    """Softmax cross-entropy over the classes and a background class whose logit is always 0.

    Use it with a head whose logits are log-odds against a background, such as :class:`~nc_tools.heads.RBFHead`:

        L = -z_y + log(1 + sum_k e^{z_k}).

    Unlike cross-entropy over the classes alone, it changes when the same number is added to all logits. So a sample
    must be close to its class, and not only closer to it than to the others. Source: the reject class of open-set
    recognition, here without samples and with a fixed logit.

    Example:
        >>> import torch
        >>> BackgroundCrossEntropyLoss()(torch.zeros(2, 3), torch.tensor([0, 2]))  # ln 4
        tensor(1.3863)
    """

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each sample (N,)."""
        return nn.functional.cross_entropy(nn.functional.pad(logits, (0, 1)), labels, reduction="none")

    def per_sample_from_probabilities(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each sample (N,) to its probabilities, which leave none for the background."""
        return expected_loss(nn.functional.pad(logits, (0, 1)).log_softmax(1)[:, :-1], targets)

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of the batch."""
        return nn.functional.cross_entropy(nn.functional.pad(logits, (0, 1)), labels)
