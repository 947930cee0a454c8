"""Several heads of one kind, computed as one: their parameters and buffers are views of stacked tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from nc_tools.heads.head import Head
from nc_tools.training.packed.stream_product import SharedRows, stacked_product
from nc_tools.training.stack_in_place import stack_in_place

Rows = SharedRows | Tensor
"""Features or embedded features of all members (M, B, D)."""


class StackedHead(ABC):
    """The heads of M members, computed in one batched product.

    The parameters and buffers of each head become views of the stacked tensors. So an optimizer that steps on the
    parameters of a head, or a head that changes its own buffers, changes the stacked tensors, and every head can be
    evaluated or saved at any time.

    Args:
        heads: Heads of one kind and shape, see :func:`~nc_tools.training.packed.head_kinds.head_kind`.

    Attributes:
        heads: The members' heads.
        num_classes: K.
        dtype: Dtype of parameters and buffers.
        of_members: The parameters of the heads by name, one of each member; views of the stacked ones.
        parameters: Stacked parameters (M, ...) by name, which gradients are computed for.
        buffers: Stacked buffers (M, ...) by name.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        self.heads = list(heads)
        self.num_classes = heads[0].num_classes
        self.dtype = next(iter(heads[0].state_dict().values())).dtype
        self.of_members = {
            name: [head.get_parameter(name) for head in heads] for name, _ in heads[0].named_parameters()
        }
        self.parameters = {name: stack_in_place(own).requires_grad_() for name, own in self.of_members.items()}
        # By position, because the buffer of the frame has another name in some heads.
        own_buffers = zip(*(head.buffers() for head in heads), strict=True)
        names = (name for name, _ in heads[0].named_buffers())
        self.buffers = {name: stack_in_place(own) for name, own in zip(names, own_buffers, strict=True)}

    @abstractmethod
    def weight(self) -> Tensor:
        """Return the class vectors (M, K, D')."""

    @abstractmethod
    def embed(self, rows: SharedRows) -> Rows:
        """Return the embedded features (M, B, D') of features (M, B, D)."""

    def scale(self) -> Tensor | None:
        """Return the scale of the dot products (M, 1), or (M, K) with one scale per class; None if it is 1."""
        return None

    def bias(self) -> Tensor | None:
        """Return the bias of each class (M, K), or None."""
        return None

    def observe(self, embedded: Rows, labels: Tensor, progress: float) -> None:  # noqa: B027 (most heads learn nothing)
        """Let every head update itself after a step, as :meth:`nc_tools.heads.head.Head.observe` does.

        Args:
            embedded: (M, B, D').
            labels: (M, B).
            progress: Share of training that is done.
        """

    def compute_logits(self, embedded: Rows) -> Tensor:
        """Return the logits (M, B, K) of embedded features (M, B, D')."""
        dtype = embedded.dtype if isinstance(embedded, Tensor) else embedded.parts[0].dtype
        logits = stacked_product(embedded, self.weight().to(dtype))
        scale, bias = self.scale(), self.bias()
        if scale is not None:
            logits = logits * scale.to(dtype).unsqueeze(1)
        return logits if bias is None else logits + bias.to(dtype).unsqueeze(1)
