"""Spread loss: gather the samples of a class, but not in one point."""

from __future__ import annotations

import math

from torch import Tensor, nn

from nc_tools._support.precision import at_least_float32
from nc_tools.heads.normalize import normalize
from nc_tools.losses._arguments import check_temperature
from nc_tools.losses._pairwise import among, by_rows, log_sum_exp, mean_over, of_kept, two_views
from nc_tools.losses._rows import kept_mean, labeled
from nc_tools.losses.class_conditional import class_conditional_info_nce
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def class_attraction(
    first: Tensor, second: Tensor, labels: Tensor, temperature: float = 0.5, kept: Tensor | None = None
) -> Tensor:
    """Return L_attract of :class:`SpreadLoss`, which gathers a class against the other classes, for each sample.

    mean_{p: y_p = y_i} log[1 + sum_{n: y_n != y_i} exp(s_in - s_ip)]. Unlike in SupCon, the samples of a class are not
    in each other's denominator.

    Args:
        first: First view (N, D'); scaled to unit length here.
        second: Second view of the same samples (N, D').
        labels: (N,). Rows with the label -100 do not count.
        temperature: tau.
        kept: Which rows count (N,), bool; None for all with a label.

    Returns:
        (N,); 0 in a batch of one class.
    """
    check_temperature(temperature)
    kept = labeled(labels, kept)
    u, v = normalize(at_least_float32(first)), normalize(at_least_float32(second))

    def per_anchor(anchors: Tensor, rows: Tensor) -> Tensor:
        scores = anchors @ v.T / temperature
        same = labels[rows][:, None] == labels
        negatives = log_sum_exp(scores, among(~same, kept))
        return mean_over(nn.functional.softplus(negatives[:, None] - scores), among(same, kept))

    return of_kept(by_rows(per_anchor, u, len(v)), kept)


class SpreadLoss(LossTerm):
    """Spread loss: gather the samples of a class against the other classes, but keep them apart from each other.

    (a * L_attract + b * L_cc) / (a + b).

    L_attract = mean_{p: y_p = y_i} -log[exp(s_ip) / (exp(s_ip) + sum_{n: y_n != y_i} exp(s_in))] gathers a class
    against the others. L_cc is the class-conditional InfoNCE, which separates the samples of a class
    (:class:`~nc_tools.losses.ClassConditionalInfoNCELoss`). The ratio of their weights sets how far a class collapses.
    The loss is meant for transfer from coarse to fine classes. u and v, with s_ij = u_i . v_j / tau, are the embedded
    features of the two views at unit length (see :class:`SupConLoss`). Source: Chen et al. 2022, with weights a and b
    in place of alpha and 1 - alpha, and the first view as anchor, the second as key.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads the features of two views.

    Args:
        attract: a, the weight of L_attract.
        separate: b, the weight of L_cc. With 0 nothing keeps the samples of a class apart.
        temperature: tau, of both parts.

    Raises:
        ValueError: If the temperature is not positive, a weight is negative or both are 0; when called, if the batch
            has one view.

    Example:
        >>> SpreadLoss(attract=1.0, separate=0.5)
        SpreadLoss(attract=1.0, separate=0.5, temperature=0.5)
    """

    over_batch = True

    views = 2

    def __init__(self, attract: float = 1.0, separate: float = 1.0, temperature: float = 0.5) -> None:
        super().__init__()
        check_temperature(temperature)
        if not (attract >= 0 and separate >= 0 and 0 < attract + separate < math.inf):
            raise ValueError(
                f"attract and separate must be finite, not negative and not both 0, got attract={attract}, "
                f"separate={separate}"
            )
        self.attract = attract
        self.separate = separate
        self.temperature = temperature

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss of the samples that count."""
        first, second = two_views(outputs, type(self).__name__)
        labels, kept = batch.labels, batch.kept
        pull = class_attraction(first, second, labels, self.temperature, kept)
        push = class_conditional_info_nce(first, second, labels, self.temperature, kept)
        total = self.attract * kept_mean(pull, kept) + self.separate * kept_mean(push, kept)
        return total / (self.attract + self.separate)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"attract={self.attract}, separate={self.separate}, temperature={self.temperature}"
