"""InfoNCE among the samples of a class, which keeps them apart: pick the second view of an image out of its class."""

from __future__ import annotations

from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.heads.normalize import normalize
from nc_tools.losses._arguments import check_temperature
from nc_tools.losses._pairwise import among, by_rows, log_sum_exp, of_kept, two_views
from nc_tools.losses._rows import kept_mean, labeled
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def class_conditional_info_nce(
    first: Tensor, second: Tensor, labels: Tensor, temperature: float = 0.5, kept: Tensor | None = None
) -> Tensor:
    """Return InfoNCE among the samples of a class, for each sample. See :class:`ClassConditionalInfoNCELoss`.

    Args:
        first: First view (N, D'); scaled to unit length here.
        second: Second view of the same samples (N, D').
        labels: (N,). Rows with the label -100 do not count.
        temperature: tau.
        kept: Which rows count (N,), bool; None for all with a label.

    Returns:
        (N,); 0 for the only sample of a class.

    Example:
        >>> import torch
        >>> class_conditional_info_nce(torch.eye(2), torch.eye(2), torch.tensor([0, 1])).tolist()
        [0.0, 0.0]
    """
    check_temperature(temperature)
    kept = labeled(labels, kept)
    u, v = normalize(at_least_float32(first)), normalize(at_least_float32(second))

    def per_anchor(anchors: Tensor, rows: Tensor) -> Tensor:
        same = among(labels[rows][:, None] == labels, kept)
        return log_sum_exp(anchors @ v.T / temperature, same)

    return of_kept(by_rows(per_anchor, u, len(v)) - (u * v).sum(1) / temperature, kept)


class ClassConditionalInfoNCELoss(LossTerm):
    """Class-conditional InfoNCE: tell each image apart from the others of its class.

    -s_ii + log sum_{j: y_j = y_i} exp(s_ij), s_ij = u_i . v_j / tau.

    It separates the samples of a class and does not act between classes. Added to SupCon or cross-entropy it keeps
    classes from collapsing to a point, which helps later tasks with finer classes. u and v are the embedded features of
    the two views at unit length (see :class:`SupConLoss`); anchors are those of the first view. Source: Chen et al.
    2022, the second part of their spread loss. The sum is over second views only: there are two views here, and any
    number of views in the paper.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads the features of two views.

    Args:
        temperature: tau.

    Raises:
        ValueError: If the temperature is not positive; when called, if the batch has one view.

    Example:
        >>> ClassConditionalInfoNCELoss()
        ClassConditionalInfoNCELoss(temperature=0.5)
    """

    over_batch = True

    views = 2

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss of the samples that count."""
        first, second = two_views(outputs, type(self).__name__)
        values = class_conditional_info_nce(first, second, batch.labels, self.temperature, batch.kept)
        return kept_mean(values, batch.kept)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"temperature={self.temperature}"
