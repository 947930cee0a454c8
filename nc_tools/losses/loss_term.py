"""The base class of all losses: what a loss is called with, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from nc_tools._support.labels import check_labels
from nc_tools.losses._logits import checked_logits
from nc_tools.records import Batch, Outputs


class LossTerm(nn.Module, ABC):
    """The base of all losses: ``loss(outputs, batch)`` returns a scalar.

    The outputs are what the head computed (:class:`~nc_tools.records.Outputs`), and the batch is what the loader
    returned. Each loss reads what it needs from these two records, so the training loop calls all losses in the same
    way. In a loop of your own ``nc_tools.watch(model)`` returns the outputs.

    A loss that needs only logits is also called as ``loss(logits, labels)``, as in PyTorch: see
    :class:`~nc_tools.losses.LogitLoss`.

    Losses compute in float32 or float64, also inside autocast, and never wait for the device. State, such as class
    centers, is kept in buffers, so that checkpoints hold it, and changes in training mode only.

    Attributes:
        views: How many augmented views of each image the loss needs, 1 or 2. The second view is ``batch.second_view``,
            and what the model computes from it is ``outputs.second_view``.
        needs_outliers: Whether the loss needs outliers, images of no class. They are ``batch.outliers``, and what the
            model computes from them is ``outputs.outliers``. Only a loss that needs outliers is given any.

    Example:
        >>> class NormLoss(LossTerm):
        ...     def compute(self, outputs, batch):
        ...         return outputs.features.norm(dim=1).mean()
        >>> from nc_tools.heads import LinearHead
        >>> batch = Batch(torch.ones(2, 4), torch.tensor([0, 2]), torch.arange(2))
        >>> NormLoss()(LinearHead(4, 3).outputs(batch.inputs), batch)
        tensor(2.)
    """

    views: int = 1
    needs_outliers: bool = False

    if TYPE_CHECKING:

        @overload
        def __call__(self, outputs: Outputs, batch: Batch, /) -> Tensor: ...
        @overload
        def __call__(self, logits: Tensor, labels: Tensor, /) -> Tensor: ...
        def __call__(self, outputs: Any, batch: Any, /) -> Tensor:
            """Return the loss, a scalar: see :meth:`forward`."""

    @abstractmethod
    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss, a scalar: the mean over the batch unless the class says otherwise.

        Override this, and call the loss itself: that checks the labels first.
        """

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Return the loss computed from logits (N, K) and labels (N,) alone, where that is possible.

        Raises:
            TypeError: If the loss needs more than logits.
        """
        raise self.needs_records()

    def needs_records(self) -> TypeError:
        """Return the error for a call with (logits, labels) of a loss that needs more than logits."""
        return TypeError(
            f"{type(self).__name__} needs more than logits, but was called with logits and labels: write watched = "
            f"nc_tools.watch(model) once, and then loss(watched.outputs, Batch(inputs, labels, index))"
        )

    def set_progress(self, progress: float) -> None:
        """Set the share of training that is done, in [0, 1]. The training loop calls this before each step.

        Override it for schedules. It calls the same method of all parts that are losses.
        """
        for part in self.children():
            if isinstance(part, LossTerm):
                part.set_progress(progress)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the named terms whose sum is the loss: one here, several for a weighted sum of losses."""
        return {type(self).__name__.removesuffix("Loss"): self(outputs, batch)}

    @overload
    def forward(self, outputs: Outputs, batch: Batch, /) -> Tensor: ...
    @overload
    def forward(self, logits: Tensor, labels: Tensor, /) -> Tensor: ...
    def forward(self, outputs: Any, batch: Any, /) -> Tensor:
        """Return the loss, a scalar.

        Args:
            outputs: What the head computed, or logits (N, K) for a loss that needs nothing else.
            batch: What the loader returned, or labels (N,), int64, beside logits.

        Raises:
            TypeError: If the labels are not int64 class indices, or the loss needs more than the logits it was given.
            ValueError: If outputs and labels are not of the same samples, or there is no sample.
        """
        return self._checked_call(self.compute, self.from_logits, outputs, batch)

    def _checked_call(
        self,
        compute: Callable[[Outputs, Batch], Tensor],
        from_logits: Callable[[Tensor, Tensor], Tensor],
        outputs: Any,
        batch: Any,
    ) -> Tensor:
        """Compute the loss from records or from tensors, outside autocast, after one check of the labels."""
        call: Callable[[Any, Any], Tensor] = compute
        if isinstance(outputs, Tensor):
            call, outputs = from_logits, checked_logits(outputs, batch, int64=True)
            samples: Tensor = outputs
        elif isinstance(batch, Tensor):
            raise TypeError(
                "a loss takes (outputs, batch), got outputs and a tensor. Pass Batch(inputs, labels, index) second."
            )
        else:
            samples = outputs.features
            check_labels(batch.labels, samples.shape[0], int64=True)
        if samples.shape[0] == 0:
            raise ValueError(f"{type(self).__name__} needs at least one sample, got an empty batch")
        device = samples.device.type
        if not torch.is_autocast_enabled(device):  # entering a context costs as much as a small step of the loss
            return call(outputs, batch)
        with torch.autocast(device, enabled=False):
            return call(outputs, batch)


def outliers_of(loss: LossTerm, outputs: Outputs) -> Outputs:
    """Return what the model computed from the batch's outliers (images of no class).

    Raises:
        ValueError: If there are none.
    """
    if outputs.outliers is None:
        raise ValueError(
            f"{type(loss).__name__} needs outliers, images of no class, but outputs.outliers is None. Wrap the loader "
            f"in WithOutliers(loader, outliers), or set outputs.outliers to what the head computes from them."
        )
    return outputs.outliers
