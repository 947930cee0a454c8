"""Pull classes together, but not to a point."""

from __future__ import annotations

import math

from torch import Tensor, nn

from nc_tools.heads.normalize import normalize
from nc_tools.losses._pairwise import by_rows, check_temperature, log_sum_exp, mean_over, two_views
from nc_tools.losses.class_conditional import class_conditional_info_nce
from nc_tools.losses.loss_term import LossTerm, widen
from nc_tools.records import Batch, Outputs


def class_attraction(first: Tensor, second: Tensor, labels: Tensor, temperature: float = 0.5) -> Tensor:
    """Pull each positive on its own against the other classes: the first part of :class:`SpreadLoss`.

    mean_{p: y_p = y_i} log[1 + sum_{n: y_n != y_i} exp(s_in - s_ip)]: unlike in SupCon, positives do not compete.

    Args:
        first: First view (N, D'); scaled to unit length here.
        second: Second view of the same samples (N, D').
        labels: (N,), int64.
        temperature: tau.

    Returns:
        (N,); 0 in a batch of one class.
    """
    check_temperature(temperature)
    u, v = normalize(widen(first)), normalize(widen(second))

    def per_anchor(anchors: Tensor, rows: Tensor) -> Tensor:
        scores = anchors @ v.T / temperature
        same = labels[rows][:, None] == labels
        negatives = log_sum_exp(scores, ~same)
        return mean_over(nn.functional.softplus(negatives[:, None] - scores), same)

    return by_rows(per_anchor, u, len(v))


class SpreadLoss(LossTerm):
    """Spread loss: (a L_attract + b L_cc) / (a + b).

    L_attract = mean_{p: y_p = y_i} -log[exp(s_ip) / (exp(s_ip) + sum_{n: y_n != y_i} exp(s_in))] gathers a class
    against the others, L_cc is the class-conditional InfoNCE that tells its samples apart; their ratio says how far a
    class may collapse. For coarse-to-fine transfer. u and v, s_ij = u_i . v_j / tau, are the embedded features of
    the two views at unit length (see :class:`SupConLoss`). Source: Chen et al. 2022, with weights a and b in place of
    alpha and 1 - alpha, and the first view as anchor, the second as key.

    Args:
        attract: a.
        separate: b; 0 leaves the pull alone, which collapses a class.
        temperature: tau, of both parts.

    Raises:
        ValueError: If the temperature is not positive, a weight is negative or both are 0; in training, if the batch
            has one view.

    Example:
        >>> SpreadLoss(attract=1.0, separate=0.5)
        SpreadLoss(attract=1.0, separate=0.5, temperature=0.5)
    """

    views = 2

    def __init__(self, attract: float = 1.0, separate: float = 1.0, temperature: float = 0.5) -> None:
        super().__init__()
        check_temperature(temperature)
        if not (attract >= 0 and separate >= 0 and 0 < attract + separate < math.inf):
            raise ValueError(
                f"attract and separate must not be negative, nor both 0, and finite, got {attract} and {separate}: "
                f"each is 1 by default"
            )
        self.attract = attract
        self.separate = separate
        self.temperature = temperature

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        first, second = two_views(outputs, type(self).__name__)
        pull = class_attraction(first, second, batch.labels, self.temperature).mean()
        push = class_conditional_info_nce(first, second, batch.labels, self.temperature).mean()
        return (self.attract * pull + self.separate * push) / (self.attract + self.separate)

    def extra_repr(self) -> str:
        """Show weights and temperature in the loss's printout."""
        return f"attract={self.attract}, separate={self.separate}, temperature={self.temperature}"
