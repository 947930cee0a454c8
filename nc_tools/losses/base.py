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
    """

    @abstractmethod
    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss, a scalar: the mean over the batch unless the class says otherwise."""

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the named terms whose sum is trained on: one here, several for a composition."""
        return {type(self).__name__: self(outputs, batch)}

    def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss, computed outside autocast."""
        with torch.autocast(outputs.features.device.type, enabled=False):
            return self.compute(outputs, batch)


def at_least_float32(x: Tensor) -> Tensor:
    """Widen bfloat16 and float16; leave float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
