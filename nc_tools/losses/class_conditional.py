"""InfoNCE within each class."""

from __future__ import annotations

from torch import Tensor

from nc_tools.heads.normalize import normalize
from nc_tools.losses._pairwise import by_rows, check_temperature, log_sum_exp, two_views
from nc_tools.losses.loss_term import LossTerm, widen
from nc_tools.records import Batch, Outputs


def class_conditional_info_nce(first: Tensor, second: Tensor, labels: Tensor, temperature: float = 0.5) -> Tensor:
    """InfoNCE among the samples of a class, for your own loop. See :class:`ClassConditionalInfoNCELoss`.

    Args:
        first: First view (N, D'); scaled to unit length here.
        second: Second view of the same samples (N, D').
        labels: (N,), int64.
        temperature: tau.

    Returns:
        (N,); 0 for a sample alone in its class.

    Example:
        >>> import torch
        >>> class_conditional_info_nce(torch.eye(2), torch.eye(2), torch.tensor([0, 1])).tolist()
        [0.0, 0.0]
    """
    check_temperature(temperature)
    u, v = normalize(widen(first)), normalize(widen(second))

    def per_anchor(anchors: Tensor, rows: Tensor) -> Tensor:
        same = labels[rows][:, None] == labels
        return log_sum_exp(anchors @ v.T / temperature, same)

    return by_rows(per_anchor, u, len(v)) - (u * v).sum(1) / temperature


class ClassConditionalInfoNCELoss(LossTerm):
    """Class-conditional InfoNCE: -s_ii + log sum_{j: y_j = y_i} exp(s_ij), s_ij = u_i . v_j / tau.

    Tells the samples of a class apart and leaves the classes alone: added to SupCon or cross-entropy it keeps classes
    from collapsing to a point, which serves finer tasks later. u and v are the embedded features of the two views at
    unit length (see :class:`SupConLoss`); anchors are those of the first. Source: Chen et al. 2022, the second part of
    their spread loss; the sum runs over second views only, as ours has two views where theirs has any number.

    Args:
        temperature: tau.

    Raises:
        ValueError: If the temperature is not positive; in training, if the batch has one view.

    Example:
        >>> ClassConditionalInfoNCELoss()
        ClassConditionalInfoNCELoss(temperature=0.5)
    """

    views = 2

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        first, second = two_views(outputs, type(self).__name__)
        return class_conditional_info_nce(first, second, batch.labels, self.temperature).mean()

    def extra_repr(self) -> str:
        """Show the temperature in the loss's printout."""
        return f"temperature={self.temperature}"
