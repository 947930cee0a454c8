"""What every loss promises."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from nc_tools.records import Batch, Outputs


class LossTerm(nn.Module, ABC):
    """A loss over a batch: (Outputs, Batch) to a scalar.

    A thin module over a free function. It reads what it needs from the two records, so that the loop never asks which
    loss it runs. Arithmetic is at least float32, inside autocast too; nothing waits for the device.

    A loss with state of its own (class centers, targets of samples) keeps it in buffers, so that a checkpoint holds it,
    and moves it in training mode only.

    Attributes:
        views: How many augmented views of each image the loss needs, 1 or 2; the second one is ``batch.second_view``,
        and
            what the model makes of it ``outputs.second_view``.
        needs_outliers: Whether the loss needs images of no class in ``batch.outliers``; what the model makes of them is
            ``outputs.outliers``. A run whose loss does not never sees any.
    """

    views: int = 1
    needs_outliers: bool = False

    @abstractmethod
    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss, a scalar: the mean over the batch unless the class says otherwise."""

    def set_progress(self, progress: float) -> None:
        """Take notice of how much of training is done, in [0, 1]; called by the loop before each step.

        Schedules live here. Parts that are losses themselves are told too.
        """
        for part in self.children():
            if isinstance(part, LossTerm):
                part.set_progress(progress)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the named terms whose sum is trained on: one here, several for a composition."""
        return {type(self).__name__.removesuffix("Loss"): self(outputs, batch)}

    def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss, computed outside autocast.

        Raises:
            TypeError: If the labels are not class indices.
            ValueError: If outputs and labels are not of the same samples, or there is none.
        """
        _check_pair(type(self).__name__, outputs, batch)
        device = outputs.features.device.type
        if not torch.is_autocast_enabled(device):  # entering a context costs as much as a small step of the loss
            return self.compute(outputs, batch)
        with torch.autocast(device, enabled=False):
            return self.compute(outputs, batch)


def _check_pair(loss: str, outputs: Outputs, batch: Batch) -> None:
    """Check that outputs and labels belong together, by shapes and types alone: nothing waits for the device."""
    labels, samples = batch.labels, len(outputs.features)
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise TypeError(
            f"labels must be class indices (N,) of integer type int64, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}: for soft labels, mix the losses of the classes that they mix; other integers need "
            f"labels.long()"
        )
    if labels.shape[0] != samples:
        raise ValueError(
            f"outputs and labels must be of the same samples, but {loss} got {samples} features and {len(labels)} "
            f"labels"
        )
    if samples == 0:
        raise ValueError(f"{loss} is a mean over samples and needs at least one, got an empty batch: leave it out")


def outliers_of(loss: LossTerm, outputs: Outputs) -> Outputs:
    """Return what the model makes of the batch's outliers.

    Raises:
        ValueError: If there are none.
    """
    if outputs.outliers is None:
        raise ValueError(
            f"{type(loss).__name__} needs images of no class and got none: wrap the loader in WithOutliers(loader, "
            f"outliers), or fill outputs.outliers with what the model makes of them"
        )
    return outputs.outliers


def widen(x: Tensor) -> Tensor:
    """Widen bfloat16 and float16; leave float32 and float64 as they are."""
    if x.dtype in (torch.float32, torch.float64):  # a conversion that changes nothing costs as much as a small step
        return x
    return x.to(torch.promote_types(x.dtype, torch.float32))
