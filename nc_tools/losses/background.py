"""Cross-entropy with a background that no sample belongs to."""

from torch import Tensor, nn

from nc_tools.losses.loss_term import LossTerm, widen
from nc_tools.records import Batch, Outputs


class BackgroundCrossEntropyLoss(LossTerm):
    """Softmax cross-entropy over the classes and a background of constant logit 0.

    Use it with a head whose logits are log-odds against a background, such as :class:`~nc_tools.heads.RBFHead`:

        L = -z_y + log(1 + sum_k e^{z_k}).

    Unlike cross-entropy over the classes alone, it changes when all logits are shifted together, so that a sample must
    come near its class, and not merely nearer to it than to the others. Source: the reject class of open-set
    recognition, here without samples of its own, at a fixed logit.

    Example:
        >>> import torch
        >>> from nc_tools.heads import RBFHead
        >>> batch = Batch(torch.zeros(2, 4), torch.tensor([0, 2]), torch.arange(2))
        >>> BackgroundCrossEntropyLoss()(RBFHead(4, 3).outputs(batch.inputs), batch)    # ln 4 at the origin
        tensor(1.3863)
    """

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        logits = widen(outputs.logits)
        return nn.functional.cross_entropy(nn.functional.pad(logits, (0, 1)), batch.labels)
