"""Losses that take weights of samples and classes, and a reduction, as those of PyTorch do."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, overload

from torch import Tensor

from nc_tools.losses._rows import IGNORED, LabeledRows, Reduction, check_reduction, rows_of
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


class WeightableLoss(LossTerm):
    """The base of losses that take weights and reductions: losses with a value for each sample, and sums of them."""

    if TYPE_CHECKING:

        @overload
        def __call__(
            self, outputs: Outputs, batch: Batch, /, *, ignore_index: int = ..., sample_weight: Tensor | None = ...,
            class_weight: Tensor | None = ..., reduction: Reduction = ...,
        ) -> Tensor: ...  # fmt: skip
        @overload
        def __call__(
            self, logits: Tensor, labels: Tensor, /, *, ignore_index: int = ..., sample_weight: Tensor | None = ...,
            class_weight: Tensor | None = ..., reduction: Reduction = ...,
        ) -> Tensor: ...  # fmt: skip
        def __call__(self, outputs: Any, batch: Any, /, **options: Any) -> Tensor:
            """Return the loss: see :meth:`forward`."""

    @abstractmethod
    def weighted(
        self,
        outputs: Any,
        batch: Any,
        ignore_index: int,
        sample_weight: Tensor | None,
        class_weight: Tensor | None,
        reduction: Reduction,
    ) -> Tensor:
        """Return the loss with weights, or with another reduction than the mean; arguments as for the call."""

    def checked_rows(self, logits: Tensor, labels: Any, ignore_index: int = IGNORED) -> LabeledRows:
        """Check logits and labels, which may be probabilities, and return them as rows."""
        rows = rows_of(logits, labels, ignore_index=ignore_index, soft=True)
        if len(rows.logits) == 0:
            raise self._no_sample()
        return rows

    @overload
    def forward(
        self, outputs: Outputs, batch: Batch, /, *, ignore_index: int = ..., sample_weight: Tensor | None = ...,
        class_weight: Tensor | None = ..., reduction: Reduction = ...,
    ) -> Tensor: ...  # fmt: skip
    @overload
    def forward(
        self, logits: Tensor, labels: Tensor, /, *, ignore_index: int = ..., sample_weight: Tensor | None = ...,
        class_weight: Tensor | None = ..., reduction: Reduction = ...,
    ) -> Tensor: ...  # fmt: skip
    def forward(
        self,
        outputs: Any,
        batch: Any,
        /,
        *,
        ignore_index: int = IGNORED,
        sample_weight: Tensor | None = None,
        class_weight: Tensor | None = None,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """Return the loss: the mean of the samples that count; 0, with gradients of 0, if there are none.

        The mean with weights w is sum_i w_i l_i / sum_i w_i, as in ``torch.nn.functional.cross_entropy(weight=...)``:
        weights change the shares of the samples and not the learning rate.

        Args:
            outputs: As for any loss: what the head computed, or logits.
            batch: As for any loss: what the loader returned, or labels. With logits, labels may also be probabilities
                of the classes, of the shape of the logits, if the loss is defined for them.
            ignore_index: The label of samples that do not count.
            sample_weight: Weight of each sample, of the shape of the labels.
            class_weight: Weight of each class (K,).
            reduction: "mean"; "sum" of the weighted losses; or "none" for the weighted loss of each sample, of the
                shape of the labels and 0 for those that do not count.

        Raises:
            TypeError: As for any loss, and for probabilities if the loss is not defined for them.
            ValueError: As for any loss, or if the weights have another shape.
        """
        if sample_weight is None and class_weight is None and reduction == "mean":
            return super().forward(outputs, batch, ignore_index=ignore_index)
        check_reduction(reduction)
        if self.needs_progress:
            self._check_progress()
        return self.weighted(outputs, batch, ignore_index, sample_weight, class_weight, reduction)
