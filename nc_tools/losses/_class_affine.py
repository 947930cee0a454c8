"""Cross-entropy with class-wise factors, shifts and margins: the common form of losses for class imbalance."""

from __future__ import annotations

from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.losses._class_counts import check_width
from nc_tools.losses._rows import Reduction, RowReduction, cross_entropy, expected_loss, kept_mean, rows_of
from nc_tools.losses.per_sample import PerSampleLoss
from nc_tools.records import Batch, Outputs


def affine_logits(
    logits: Tensor,
    labels: Tensor,
    *,
    factor: Tensor | None = None,
    shift: Tensor | None = None,
    margin: Tensor | None = None,
) -> Tensor:
    """Return logits with a factor, a shift and a margin for each class. See :class:`ClassAffineCrossEntropyLoss`.

    The result is a_k z_k + b_k, minus m_y for the label's class.

    Factor and shift take one pass over (N, K), and the margin one. In the backward pass only the factor takes one.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        factor: a (K,). None: 1.
        shift: b (K,). None: 0.
        margin: m (K,), in units of the logits. None: 0.

    Returns:
        (N, K), at least float32.

    Raises:
        TypeError: If the labels are not class indices, or a vector is not a tensor.
        ValueError: If a vector does not have K entries, or the shapes of logits and labels do not fit.

    Example:
        >>> import torch
        >>> affine_logits(torch.tensor([[2.0, 1.0]]), torch.tensor([0]), margin=torch.tensor([0.5, 9.0]))
        tensor([[1.5000, 1.0000]])
    """
    rows = rows_of(logits, labels)
    return _affine(rows.logits, rows.labels, factor, shift, margin)


def _affine(z: Tensor, labels: Tensor, factor: Tensor | None, shift: Tensor | None, margin: Tensor | None) -> Tensor:
    """Return :func:`affine_logits` of logits and labels that are checked. Only a margin reads the labels."""
    if factor is not None:
        a = _matching(factor, z)
        z = z * a if shift is None else _matching(shift, z).addcmul(z, a)
    elif shift is not None:
        z = z + _matching(shift, z)
    if margin is not None:
        own = _matching(margin, z).index_select(0, labels).neg()
        z = z.scatter_add(1, labels.unsqueeze(1), own.unsqueeze(1))
    return z


def _matching(vector: Tensor, z: Tensor) -> Tensor:
    """Check a vector over classes (K,), and return it in the dtype of the logits."""
    if not isinstance(vector, Tensor):
        raise TypeError(
            f"factor, shift and margin must be tensors with a number for each class, got {vector!r}: give "
            f"torch.full(({z.shape[1]},), {vector!r})"
        )
    check_width(vector, z)
    return vector if vector.dtype == z.dtype else vector.to(z.dtype)


def affine_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    factor: Tensor | None = None,
    shift: Tensor | None = None,
    margin: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Return the cross-entropy of :func:`affine_logits`, for each sample or reduced.

    Takes the arguments of :func:`affine_logits`, and ``reduction``: "none", "mean" or "sum".

    Returns:
        (N,): -log softmax(a z + b - m_y e_y)_y; or a scalar with ``reduction`` "mean" or "sum".

    Example:
        >>> import torch
        >>> z, y = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> affine_cross_entropy(z, y, margin=torch.tensor([2.0, 2.0]))  # log 2: z_0 - 2 equals z_1
        tensor([0.6931])
    """

    def loss(z: Tensor, y: Tensor, of_rows: RowReduction) -> Tensor:
        return cross_entropy(_affine(z, y, factor, shift, margin), y, of_rows)

    return rows_of(logits, labels).apply(loss, reduction)


class ClassAffineCrossEntropyLoss(PerSampleLoss):
    """Cross-entropy of logits with a factor, a shift and a margin for each class.

    The adjusted logits are z'_k = a_k z_k + b_k - s m_k [k = y].

    The losses for class imbalance that change the logits are all of this form. They differ in how the three vectors
    follow from the class counts. :class:`~nc_tools.losses.LogitAdjustedLoss` (and balanced softmax, and ARB) has a
    shift by the prior, :class:`~nc_tools.losses.VectorScalingLoss` a shift and a factor, and
    :class:`~nc_tools.losses.LDAMLoss` a margin. Use this class for vectors of your own. It is for training only:
    predictions are the argmax of the plain logits.

    The margin is in units of the cosine (of w_y . h for a head that does not normalize). It is multiplied by the head's
    scale s, as the logits are. So a loss with a margin takes ``(outputs, batch)``, from ``nc_tools.watch(model)``;
    without a margin it also takes ``(logits, labels)``.

    Args:
        factor: a (K,). None: 1.
        shift: b (K,). None: 0.
        margin: m (K,). None: 0.

    Raises:
        TypeError: If one of them is not a tensor.

    Example:
        >>> ClassAffineCrossEntropyLoss()  # plain cross-entropy
        ClassAffineCrossEntropyLoss()
    """

    factor: Tensor | None
    shift: Tensor | None
    margin: Tensor | None

    def __init__(
        self, *, factor: Tensor | None = None, shift: Tensor | None = None, margin: Tensor | None = None
    ) -> None:
        super().__init__()
        for name, value in (("factor", factor), ("shift", shift), ("margin", margin)):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"{name} must be a tensor (K,), got {value!r}. For one number write torch.full((K,), {value!r})."
                )
        self.keep_buffer("factor", factor, persistent=False)
        self.keep_buffer("shift", shift, persistent=False)
        self.keep_buffer("margin", margin, persistent=False)

    def compute_per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the cross-entropy of the adjusted logits (N,)."""
        return self._of_outputs(outputs, batch.labels, "none")

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss of the samples that count."""
        if batch.kept is None:
            return self._of_outputs(outputs, batch.labels, "mean")
        return kept_mean(self._of_outputs(outputs, batch.labels, "none"), batch.kept)

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of the adjusted logits (N,), from logits alone; not possible with a margin."""
        return self._of_logits(logits, labels, "none")

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of the batch, from logits alone; not possible with a margin."""
        return self._of_logits(logits, labels, "mean")

    def per_sample_from_probabilities(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of the adjusted logits (N,) to probabilities; not possible with a margin."""
        if self.margin is not None:
            raise self.needs_records()
        z = _affine(logits, targets, self.factor, self.shift, None)
        return expected_loss(z.log_softmax(1), targets)

    def _of_outputs(self, outputs: Outputs, labels: Tensor, reduction: Reduction) -> Tensor:
        margin = self.margin
        if margin is not None:
            scale = outputs.scale
            if isinstance(scale, Tensor) or scale != 1:
                margin = scale * margin
        z = _affine(at_least_float32(outputs.logits, "logits"), labels, self.factor, self.shift, margin)
        return cross_entropy(z, labels, reduction)

    def _of_logits(self, logits: Tensor, labels: Tensor, reduction: Reduction) -> Tensor:
        if self.margin is not None:
            raise self.needs_records()
        z = _affine(logits, labels, self.factor, self.shift, None)
        return cross_entropy(z, labels, reduction)
