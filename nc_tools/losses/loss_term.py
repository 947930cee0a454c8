"""The base class of all losses: what a loss is called with, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from nc_tools._support.initial_tensors import InitialTensors
from nc_tools._support.labels import check_labels
from nc_tools.losses._rows import IGNORED, LabeledRows, rows_of, valid_labels
from nc_tools.losses._whole_batch import whole_batch
from nc_tools.records import Batch, Outputs


class LossTerm(InitialTensors, ABC):
    """The base of all losses: ``loss(outputs, batch)`` returns a scalar.

    The outputs are what the head computed (:class:`~nc_tools.records.Outputs`), and the batch is what the loader
    returned. Each loss reads what it needs from these two records, so the training loop calls all losses in the same
    way. In a loop of your own ``nc_tools.watch(model)`` returns the outputs.

    A loss that needs only logits is also called as ``loss(logits, labels)``, as in PyTorch: see
    :class:`~nc_tools.losses.LogitLoss`.

    A label is a class index of any integer type; a sample whose label is -100 (``ignore_index``) does not count, in any
    loss.

    Losses compute in float32 or float64, also inside autocast, and do not wait for the device, unless they exchange
    samples with other processes. State, such as class centers, is kept in buffers, so that checkpoints hold it, and
    changes in training mode only.

    Attributes:
        views: How many augmented views of each image the loss needs, 1 or 2. The second view is ``batch.second_view``,
            and what the model computes from it is ``outputs.second_view``.
        needs_outliers: Whether the loss needs outliers, images of no class. They are ``batch.outliers``, and what the
            model computes from them is ``outputs.outliers``. Only a loss that needs outliers is given any.
        needs_progress: Whether the loss changes during training, so that :meth:`set_progress` must be called before it
            is trained with.
        over_batch: Whether a sample's loss depends on the other samples of the batch, as in contrastive losses. In
            distributed training the loss is then that of the samples of all processes, each of which must call it.

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
    needs_progress: bool = False
    over_batch: bool = False
    _knows_progress = False  # not the progress itself: a compiled step would be compiled again for each value

    if TYPE_CHECKING:

        @overload
        def __call__(self, outputs: Outputs, batch: Batch, /, *, ignore_index: int = ...) -> Tensor: ...
        @overload
        def __call__(self, logits: Tensor, labels: Tensor, /, *, ignore_index: int = ...) -> Tensor: ...
        def __call__(self, outputs: Any, batch: Any, /, *, ignore_index: int = IGNORED) -> Tensor:
            """Return the loss, a scalar: see :meth:`forward`."""

    @abstractmethod
    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss, a scalar: the mean over the batch unless the class says otherwise.

        Override this, and call the loss itself: that checks the labels first, and replaces those of samples that do not
        count by 0. If ``batch.kept`` is not None, leave out the samples where it is False;
        :func:`~nc_tools.losses.kept_mean` is the mean over the others.
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

    def needs_class_indices(self, targets: Tensor) -> TypeError:
        """Return the error for probabilities of the classes in place of class indices."""
        return TypeError(
            f"{type(self).__name__} is defined for class indices only, got probabilities of shape "
            f"{tuple(targets.shape)}. Pass labels.argmax(-1), or use a loss such as CrossEntropyLoss."
        )

    def set_progress(self, progress: float) -> None:
        """Set the share of training that is done, in [0, 1]. The training loop calls this before each step.

        A loss with a schedule overrides this method, calls ``super().set_progress(progress)``, and sets
        ``needs_progress = True`` in its class. Shares may come in any order. Write what depends on the share into a
        buffer, in place, because a compiled or recorded step reads tensors only. The method of this base class calls
        that of all parts of the loss that are losses.
        """
        self._knows_progress = True
        for part in self.children():
            if isinstance(part, LossTerm):
                part.set_progress(progress)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the named terms whose sum is the loss: one here, several for a weighted sum of losses."""
        return {type(self).__name__.removesuffix("Loss"): self(outputs, batch)}

    @overload
    def forward(self, outputs: Outputs, batch: Batch, /, *, ignore_index: int = ...) -> Tensor: ...
    @overload
    def forward(self, logits: Tensor, labels: Tensor, /, *, ignore_index: int = ...) -> Tensor: ...
    def forward(self, outputs: Any, batch: Any, /, *, ignore_index: int = IGNORED) -> Tensor:
        """Return the loss, a scalar; 0, with gradients of 0, if no sample counts.

        Args:
            outputs: What the head computed, or logits (N, K) for a loss that needs nothing else; logits may also be
                (N, T, K) for tokens and (N, K, H, W) for pixels.
            batch: What the loader returned, or labels beside logits: class indices of any integer type (N,), (N, T) or
                (N, H, W).
            ignore_index: The label of samples that do not count.

        Raises:
            TypeError: If the labels are not class indices, or the loss needs more than the logits it was given.
            ValueError: If outputs and labels are not of the same samples, there is no sample, or a label is beyond the
                classes (found on the CPU only).
            RuntimeError: If the loss changes during training, is trained with, and was not told its progress.
        """
        if self.needs_progress:
            self._check_progress()
        if isinstance(outputs, Tensor):
            rows = self.checked_rows(outputs, batch, ignore_index)
            return outside_autocast(outputs, self.of_rows, rows)
        checked = self.checked_batch(outputs, batch, ignore_index)
        if self.over_batch:
            outputs, checked, _ = whole_batch(outputs, checked)
        return outside_autocast(outputs.features, self.compute, outputs, checked)

    def of_rows(self, rows: LabeledRows) -> Tensor:
        """Return the loss, a scalar, of logits and labels that are checked. Losses that take weights override this."""
        if rows.are_soft():  # only in a sum of losses, which accepts probabilities
            raise self.needs_class_indices(rows.labels)
        if rows.kept is None:
            return self.from_logits(rows.logits, rows.labels)
        # A loss of your own may not know the mask, so the other rows are left out: on a GPU the host waits.
        return self.from_logits(rows.logits[rows.kept], rows.labels[rows.kept])

    def checked_rows(self, logits: Tensor, labels: Any, ignore_index: int = IGNORED) -> LabeledRows:
        """Check logits and labels, and return them as rows."""
        rows = rows_of(logits, labels, ignore_index=ignore_index)
        if len(rows.logits) == 0:
            raise self._no_sample()
        return rows

    def checked_batch(self, outputs: Outputs, batch: Any, ignore_index: int = IGNORED) -> Batch:
        """Check the labels of a batch, and return it with valid labels and the mask of the samples that count."""
        if isinstance(batch, Tensor):
            raise TypeError(
                "a loss takes (outputs, batch), got outputs and a tensor. Pass Batch(inputs, labels, index) second."
            )
        count = outputs.features.shape[0]
        check_labels(batch.labels, count)
        if count == 0:
            raise self._no_sample()
        labels, kept = valid_labels(batch.labels, outputs.num_classes, ignore_index)
        if batch.kept is not None:
            kept = batch.kept if kept is None else kept & batch.kept
        checked: Batch = batch
        return checked if labels is batch.labels and kept is batch.kept else replace(batch, labels=labels, kept=kept)

    def _check_progress(self) -> None:
        if not self._knows_progress and self.training and torch.is_grad_enabled():
            raise RuntimeError(
                f"{type(self).__name__} changes during training, but was not told its progress: call "
                f"loss.set_progress(step / steps) before each step, or loss.set_progress(0.0) once to leave it as it is"
            )

    def _no_sample(self) -> ValueError:
        return ValueError(f"{type(self).__name__} needs at least one sample, got an empty batch")


def outside_autocast(values: Tensor, call: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Return ``call(*arguments)``, computed outside autocast on the device of ``values``."""
    device = "cpu" if values.is_cpu else values.device.type
    if not torch.is_autocast_enabled(device):  # entering a context costs as much as a small step of the loss
        return call(*arguments)
    with torch.autocast(device, enabled=False):
        return call(*arguments)


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
