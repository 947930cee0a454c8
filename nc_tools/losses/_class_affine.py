"""Cross-entropy of logits that are scaled, shifted and given a margin, class by class: one kernel for imbalance."""

from __future__ import annotations

from torch import Tensor, nn

from nc_tools.losses._class_counts import check_width
from nc_tools.losses.per_sample import PerSampleLoss, checked_logits
from nc_tools.records import Batch, Outputs


def affine_logits(
    logits: Tensor,
    labels: Tensor,
    *,
    factor: Tensor | None = None,
    shift: Tensor | None = None,
    margin: Tensor | None = None,
) -> Tensor:
    """Return a_k z_k + b_k, less m_y at the own class. See :class:`ClassAffineCrossEntropyLoss`.

    One pass over (N, K) for factor and shift, one for the margin; in the backward pass none but for the factor.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        factor: a (K,); None is 1.
        shift: b (K,); None is 0.
        margin: m (K,), in units of the logits; None is 0.

    Returns:
        (N, K), at least float32.

    Raises:
        TypeError: If the labels are not class indices.
        ValueError: If a vector does not have K entries.

    Example:
        >>> import torch
        >>> affine_logits(torch.tensor([[2.0, 1.0]]), torch.tensor([0]), margin=torch.tensor([0.5, 9.0]))
        tensor([[1.5000, 1.0000]])
    """
    z = checked_logits(logits, labels)
    if factor is not None:
        a = _fitting(factor, z)
        z = z * a if shift is None else _fitting(shift, z).addcmul(z, a)
    elif shift is not None:
        z = z + _fitting(shift, z)
    if margin is not None:
        own = _fitting(margin, z).index_select(0, labels).neg()
        z = z.scatter_add(1, labels.unsqueeze(1), own.unsqueeze(1))
    return z


def _fitting(vector: Tensor, z: Tensor) -> Tensor:
    """Return a vector over classes in the logits' precision."""
    check_width(vector, z)
    return vector if vector.dtype == z.dtype else vector.to(z.dtype)


def affine_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    factor: Tensor | None = None,
    shift: Tensor | None = None,
    margin: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of :func:`affine_logits`, per sample, with the same arguments.

    Returns:
        (N,): -log softmax(a z + b - m_y e_y)_y.

    Example:
        >>> import torch
        >>> z, y = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> affine_cross_entropy(z, y, margin=torch.tensor([2.0, 2.0]))  # log 2: the margin eats the lead
        tensor([0.6931])
    """
    z = affine_logits(logits, labels, factor=factor, shift=shift, margin=margin)
    return nn.functional.cross_entropy(z, labels, reduction="none")


class ClassAffineCrossEntropyLoss(PerSampleLoss):
    """Cross-entropy of adjusted logits: z'_k = a_k z_k + b_k - s m_k [k = y].

    The losses for class imbalance that change the logits are all of this form, and differ in how the three vectors
    come from the class counts: a shift by the prior is :class:`~nc_tools.losses.LogitAdjustedLoss` (and balanced
    softmax, and ARB), with a factor :class:`~nc_tools.losses.VectorScalingLoss`, with a margin
    :class:`~nc_tools.losses.LDAMLoss`. Use it itself for vectors of your own. For training only: prediction takes the
    argmax of the plain logits.

    The margin is in units of the cosine (of w_y . h for a head that does not normalize) and is multiplied by the
    head's scale s, as the logits are.

    Args:
        factor: a (K,); None is 1.
        shift: b (K,); None is 0.
        margin: m (K,); None is 0.

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
                raise TypeError(f"{name} must be a tensor (K,), got {value!r}: torch.full((K,), value) for one number")
        self.register_buffer("factor", factor, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("margin", margin, persistent=False)

    def per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the cross-entropy of the adjusted logits (N,)."""
        return nn.functional.cross_entropy(self._adjusted(outputs, batch), batch.labels, reduction="none")

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch, taken inside the kernel: fewer small steps."""
        return nn.functional.cross_entropy(self._adjusted(outputs, batch), batch.labels)

    def _adjusted(self, outputs: Outputs, batch: Batch) -> Tensor:
        margin, scale = self.margin, outputs.scale
        if margin is not None and (isinstance(scale, Tensor) or scale != 1):
            margin = scale * margin
        return affine_logits(outputs.logits, batch.labels, factor=self.factor, shift=self.shift, margin=margin)
